# Exceptions and interrupts of bare-metal guests: 256 gates of 16 bytes each, and what they share.
#
# Each gate leaves an error code (0 where the processor pushes none) and its vector on the stack, then the common part
# saves the registers in the order of `TrapFrame` and calls `rt_trap` in trap.rs.

.section .text.trap, "ax", @progbits
.code64
.balign 16
.global rt_gates
rt_gates:
.set rt_vector, 0
.rept 256
    .balign 16
    .if (rt_vector == 8) || ((rt_vector >= 10) && (rt_vector <= 14)) || (rt_vector == 17) || (rt_vector == 21) || (rt_vector == 29) || (rt_vector == 30)
    .else
    pushq $0
    .endif
    .byte 0x68                  # push imm32
    .long rt_vector
    jmp rt_trap_common
    .set rt_vector, rt_vector + 1
.endr

rt_trap_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    call rt_trap
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
