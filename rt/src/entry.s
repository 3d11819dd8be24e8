# Entry of a bare-metal PVH guest: from 32-bit flat protected mode (Xen docs/misc/pvh.pandoc) to 64-bit Rust.
#
# The first 4 GiB are mapped one to one in 2 MiB pages. The guest's own code is linked at its physical addresses.

.section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18              # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long rt_entry

.section .text.entry, "ax", @progbits
.code32
.global rt_entry
rt_entry:
    cld
    movl $rt_stack_top, %esp
    movl %ebx, %edi             # the start info, first argument of rt_main
    movl $rt_directories, %ebx
    movl $0x83, %eax
    xorl %ecx, %ecx
1:  movl %eax, (%ebx,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jb 1b
    movl $rt_pointers, %ebx
    movl $(rt_directories + 7), %eax
    xorl %ecx, %ecx
2:  movl %eax, (%ebx,%ecx,8)
    addl $0x1000, %eax
    incl %ecx
    cmpl $4, %ecx
    jb 2b
    movl $(rt_pointers + 7), rt_level4
    call rt_enable_paging
    lgdt rt_gdt_pointer
    ljmp $8, $3f
.code64
3:  movl $16, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    xorl %ebp, %ebp
    call rt_main
    ud2

.code32
# Switches to long mode with the tables at rt_level4. Used by the first processor and, in ap.s, by the others.
.global rt_enable_paging
rt_enable_paging:
    movl %cr4, %eax
    orl $0x620, %eax            # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $rt_level4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax            # LME, NXE
    wrmsr
    movl %cr0, %eax
    orl $0x80010003, %eax       # PG, WP, MP, PE
    movl %eax, %cr0
    ret

.section .data.entry, "aw", @progbits
.balign 8
.global rt_gdt
rt_gdt:
    .quad 0
    .quad 0x00af9a000000ffff    # 64-bit code
    .quad 0x00cf92000000ffff    # data
    .quad 0x00cffa000000ffff    # 32-bit user code
    .quad 0x00cff2000000ffff    # user data
    .quad 0x00affa000000ffff    # 64-bit user code
    .quad 0, 0                  # task state, filled in by cpu.rs in each processor's copy
    .quad 0x00cf9a000000ffff    # 32-bit code
.global rt_gdt_end
rt_gdt_end:
rt_gdt_pointer:
    .short rt_gdt_end - rt_gdt - 1
    .quad rt_gdt

.section .bss.entry, "aw", @nobits
.balign 4096
.global rt_level4
rt_level4:      .skip 4096
.global rt_pointers
rt_pointers:    .skip 4096
.global rt_directories
rt_directories: .skip 16384
rt_stack_bottom: .skip 65536
.global rt_stack_top
rt_stack_top:
