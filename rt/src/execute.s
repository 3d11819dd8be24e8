# Runs machine code that may fault, with every register chosen by the caller: execute.rs describes it.
#
# GS points to the processor's block (`Cpu` in cpu.rs): 8 recover, 16 stack, 24 code, 32 scratch, 80 address of the task
# state. The register block is `Registers`: rax rbx rcx rdx rsi rdi rbp r8-r15 rflags.

.section .text.execute, "ax", @progbits
.code64

.macro rt_save_own
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushfq
    pushq %rsi                  # the register block
    movq %rsp, %gs:16
    leaq rt_execute_end(%rip), %rax
    movq %rax, %gs:8
    movq %rsi, %rax
.endm

.macro rt_load_registers
    movq 8(%rax), %rbx
    movq 16(%rax), %rcx
    movq 24(%rax), %rdx
    movq 32(%rax), %rsi
    movq 40(%rax), %rdi
    movq 48(%rax), %rbp
    movq 56(%rax), %r8
    movq 64(%rax), %r9
    movq 72(%rax), %r10
    movq 80(%rax), %r11
    movq 88(%rax), %r12
    movq 96(%rax), %r13
    movq 104(%rax), %r14
    movq 112(%rax), %r15
    movq (%rax), %rax
.endm

# rt_execute(rdi: code, rsi: registers): the code ends with RET.
.global rt_execute
rt_execute:
    rt_save_own
    movq %rdi, %gs:24
    pushq 120(%rax)
    popfq
    rt_load_registers
    callq *%gs:24
rt_execute_end:                 # also reached from a fault, with the registers of that moment
    movq %gs:16, %rsp
    movq %rax, %gs:32
    popq %rax
    pushfq
    popq 120(%rax)
    movq %rbx, 8(%rax)
    movq %rcx, 16(%rax)
    movq %rdx, 24(%rax)
    movq %rsi, 32(%rax)
    movq %rdi, 40(%rax)
    movq %rbp, 48(%rax)
    movq %r8, 56(%rax)
    movq %r9, 64(%rax)
    movq %r10, 72(%rax)
    movq %r11, 80(%rax)
    movq %r12, 88(%rax)
    movq %r13, 96(%rax)
    movq %r14, 104(%rax)
    movq %r15, 112(%rax)
    movq %gs:32, %rbx
    movq %rbx, (%rax)
    movq $0, %gs:8
    popfq
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret

# rt_execute_user(rdi: code, rsi: registers, rdx: stack, ecx: code selector, r8d: stack selector): ends with INT 0x81.
.global rt_execute_user
rt_execute_user:
    rt_save_own
    movq %gs:80, %r9
    movq %rsp, 4(%r9)           # stack for the way back
    pushq %r8
    pushq %rdx
    pushq 120(%rax)
    pushq %rcx
    pushq %rdi
    rt_load_registers
    iretq
