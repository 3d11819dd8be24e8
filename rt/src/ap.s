# Start of a further processor: a page copied below 1 MiB for INIT-SIPI, and the 64-bit entry that VCPUOP_initialise uses.

.section .text.ap, "ax", @progbits
.code16
.global rt_ap_begin
rt_ap_begin:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl rt_ap_pointer - rt_ap_begin
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x40, $rt_ap_32
.balign 8
rt_ap_pointer:
    .short rt_gdt_end - rt_gdt - 1
    .long rt_gdt
.global rt_ap_end
rt_ap_end:

.code32
rt_ap_32:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl rt_ap_stack, %esp
    call rt_enable_paging
    ljmp $8, $rt_ap_64

.code64
.global rt_ap_64
rt_ap_64:
    cli
    cld
    lgdt rt_ap_pointer_64(%rip)
    movq rt_ap_stack(%rip), %rsp
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    pushq $8
    leaq 1f(%rip), %rax
    pushq %rax
    lretq
1:  xorl %ebp, %ebp
    call rt_ap_main
    ud2
.balign 8
rt_ap_pointer_64:
    .short rt_gdt_end - rt_gdt - 1
    .quad rt_gdt

.section .data.ap, "aw", @progbits
.balign 8
.global rt_ap_stack
rt_ap_stack: .quad 0            # top of the stack of the processor that is being started
