# The first instructions: from whatever a boot loader leaves (32-bit protected mode, no paging) to 64-bit Rust.
#
# Three headers, one path: Multiboot 1 (QEMU -kernel), Multiboot 2 (GRUB) and the PVH note (QEMU, nested in Xen or KVM).
# Paging maps the first 4 GiB three times: at 0, at the direct map, and the first GiB at the image's virtual address.
# Rust then moves the image to the top of memory and builds the real tables.

.set VIRTUAL, 0xffffffff80000000
.set FLAGS, 0x00010003          # modules page aligned, memory map, address fields valid

.section .boot.header, "a", @progbits
.balign 4
multiboot1_header:
    .long 0x1badb002
    .long FLAGS
    .long -(0x1badb002 + FLAGS)
    .long multiboot1_header - VIRTUAL
    .long __image_start - VIRTUAL
    .long __data_end - VIRTUAL
    .long __image_end - VIRTUAL
    .long entry_multiboot - VIRTUAL
.balign 8
multiboot2_header:
    .long 0xe85250d6
    .long 0
    .long multiboot2_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_end - multiboot2_header))
    .short 1, 0                 # information request
    .long 12
    .long 6                     # memory map
    .balign 8
    .short 3, 0                 # entry address
    .long 12
    .long entry_multiboot - VIRTUAL
    .balign 8
    .short 6, 0                 # modules page aligned
    .long 8
    .balign 8
    .short 0, 0
    .long 8
multiboot2_end:

.section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18              # name bytes, description bytes, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long entry_pvh - VIRTUAL

.section .boot.text, "ax", @progbits
.code32
.global entry_pvh
entry_pvh:
    movl $0x336ec578, %eax      # PVH gives no magic number in a register: the one of its structure serves
.global entry_multiboot
entry_multiboot:
    cld
    cli
    movl %eax, %edi
    movl %ebx, %esi
    movl $(__boot_stack_top - VIRTUAL), %esp

    # Is there a 64-bit mode?
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb 9f
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc 9f

    # 4 GiB in 2 MiB pages, through four page directories that follow one another.
    movl $(boot_directories - VIRTUAL), %ebx
    movl $0x83, %eax
    xorl %ecx, %ecx
1:  movl %eax, (%ebx,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jb 1b
    movl $(boot_pointers_low - VIRTUAL), %ebx
    movl $(boot_directories - VIRTUAL + 3), %eax
    xorl %ecx, %ecx
2:  movl %eax, (%ebx,%ecx,8)
    addl $0x1000, %eax
    incl %ecx
    cmpl $4, %ecx
    jb 2b
    movl $(boot_directories - VIRTUAL + 3), boot_pointers_high - VIRTUAL + 510 * 8
    movl $(boot_level4 - VIRTUAL), %ebx
    movl $(boot_pointers_low - VIRTUAL + 3), %eax
    movl %eax, (%ebx)
    movl %eax, 256 * 8(%ebx)
    movl $(boot_pointers_high - VIRTUAL + 3), 511 * 8(%ebx)

    movl %cr4, %eax
    orl $0x20, %eax             # PAE
    movl %eax, %cr4
    movl %ebx, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax            # LME, NXE
    wrmsr
    movl %cr0, %eax
    orl $0x80010001, %eax       # PG, WP, PE
    movl %eax, %cr0
    lgdt boot_gdt_pointer - VIRTUAL
    ljmp $8, $(3f - VIRTUAL)
.code64
3:  movabsq $4f, %rax
    jmp *%rax
4:  movq $__boot_stack_top, %rsp
    xorl %eax, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    xorl %ebp, %ebp
    movl %edi, %edi
    movl %esi, %esi
    call boot_main
    ud2

.code32
9:  # No console is set up and there is no 64-bit code that could run: say it on the first serial port as it stands.
    movl $(no_long_mode - VIRTUAL), %esi
    movw $0x3f8, %dx
8:  lodsb
    testb %al, %al
    jz 7f
    outb %al, %dx
    jmp 8b
7:  hlt
    jmp 7b
no_long_mode:
    .asciz "Oxen: this processor has no 64-bit mode: cannot start\r\n"

.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 64-bit code
    .quad 0x00cf93000000ffff    # data
    .quad 0x00cf9b000000ffff    # 32-bit code, for the other processors' start
boot_gdt_pointer:
    .short boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt - VIRTUAL

# Start of the other processors: copied to a page below 1 MiB, where they begin in real mode with CS = page >> 4.
# Words at the end are filled in before each start. Position independent through the segment base.
.section .rodata.trampoline, "a", @progbits
.code16
.global trampoline_start
trampoline_start:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline_start
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl trampoline_cr3 - trampoline_start, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl %cr0, %eax
    andl $0x9fffffff, %eax      # INIT leaves the caches disabled
    orl $0x80010001, %eax
    movl %eax, %cr0
    ljmpl *(trampoline_target - trampoline_start)
.balign 4
trampoline_gdt_pointer:
    .short 23
.global trampoline_gdt_base
trampoline_gdt_base:
    .long 0                     # physical address of trampoline_gdt
    .short 0
.global trampoline_target
trampoline_target:
    .long 0                     # physical address of trampoline_long
    .long 8
.global trampoline_cr3
trampoline_cr3:
    .long 0
.balign 8
# The accessed bits are set already: the page is mapped read-only, and the processor would want to set them.
trampoline_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
.code64
trampoline_long:
    movl $16, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    movq trampoline_stack(%rip), %rsp
    movq trampoline_argument(%rip), %rdi
    movq trampoline_entry(%rip), %rax
    xorl %ebp, %ebp
    call *%rax
    ud2
.balign 8
.global trampoline_stack
trampoline_stack:
    .quad 0
.global trampoline_argument
trampoline_argument:
    .quad 0
.global trampoline_entry
trampoline_entry:
    .quad 0
.global trampoline_end
trampoline_end:
.global trampoline_gdt
.global trampoline_long

.section .bss.boot, "aw", @nobits
.balign 4096
.global boot_level4
boot_level4:        .skip 4096
boot_pointers_low:  .skip 4096
boot_pointers_high: .skip 4096
boot_directories:   .skip 16384
