// Process 1 of a container with --init, for AArch64. ABI: AAPCS64 (process entry), syscalls(2).
// argv: itself, the program's path, the program's own argv[0] and arguments.
        .globl  _start
_start: ldr     x19, [sp]                   // argc
        add     x20, sp, #8                 // argv
        add     x21, x20, x19, lsl #3
        add     x21, x21, #8                // envp
        cmp     x19, #3
        b.lo    usage
        sub     sp, sp, #0x200
        mov     x0, #-1                     // every signal: fetched here, never acted upon
        str     x0, [sp]
        mov     x8, #135                    // rt_sigprocmask(SIG_SETMASK, all, old, 8)
        mov     x0, #2
        mov     x1, sp
        add     x2, sp, #8
        mov     x3, #8
        svc     #0
        mov     x8, #220                    // clone(SIGCHLD): a fork
        mov     x0, #17
        mov     x1, #0
        mov     x2, #0
        mov     x3, #0
        mov     x4, #0
        svc     #0
        tbnz    x0, #63, usage
        cbz     x0, child
        mov     x22, x0                     // the program's pid
        mov     x8, #167                    // prctl(PR_SET_NAME, name): executed from memory, it has none
        mov     x0, #15
        adr     x1, name
        svc     #0
next:   mov     x8, #137                    // rt_sigtimedwait(all, info, NULL, 8)
        mov     x0, sp
        add     x1, sp, #64
        mov     x2, #0
        mov     x3, #8
        svc     #0
        tbnz    x0, #63, next
        cmp     x0, #17                     // SIGCHLD
        b.eq    reap
        mov     x24, x0
        ldr     w9, [sp, #(64 + 8)]         // si_code: above 0 it is the kernel's (a terminal)
        cmp     w9, #0
        b.gt    forward
        add     x10, sp, #32                // who sent it becomes our name: the signal, its uid, its pid
        add     w9, w24, #'0'
        strb    w9, [x10], #1
        ldr     w9, [sp, #(64 + 20)]
        mov     w11, #8
        bl      digits
        ldr     w9, [sp, #(64 + 16)]
        lsl     w9, w9, #8
        mov     w11, #6
        bl      digits
        strb    wzr, [x10]
        mov     x8, #167                    // prctl(PR_SET_NAME, it)
        mov     x0, #15
        add     x1, sp, #32
        svc     #0
forward: mov    x8, #129                    // kill(pid, signal)
        mov     x0, x22
        mov     x1, x24
        svc     #0
        b       next
reap:   mov     x8, #260                    // wait4(-1, &status, WNOHANG, NULL)
        mov     x0, #-1
        add     x1, sp, #16
        mov     x2, #1
        mov     x3, #0
        svc     #0
        cmp     x0, #0
        b.le    next
        cmp     x0, x22
        b.ne    reap
        ldr     w1, [sp, #16]               // the program's own end is ours: its status, or 128 and its signal
        ands    w0, w1, #0x7f
        add     w0, w0, #128
        b.ne    exit
        ubfx    w0, w1, #8, #8
exit:   mov     x8, #94                     // exit_group
        svc     #0
child:  mov     x8, #154                    // setpgid(0, 0): a terminal's signals are for the program alone
        mov     x0, #0
        mov     x1, #0
        svc     #0
        mov     x8, #172                    // getpid
        svc     #0
        str     w0, [sp, #24]
        mov     x8, #29                     // ioctl(0, TIOCSPGRP, &pid): no terminal is no error
        mov     x0, #0
        mov     x1, #0x5410
        add     x2, sp, #24
        svc     #0
        mov     x8, #135                    // rt_sigprocmask(SIG_SETMASK, old, NULL, 8)
        mov     x0, #2
        add     x1, sp, #8
        mov     x2, #0
        mov     x3, #8
        svc     #0
        mov     x8, #221                    // execve(argv[1], argv + 2, envp)
        ldr     x0, [x20, #8]
        add     x1, x20, #16
        mov     x2, x21
        svc     #0
        mov     x23, x0
        mov     x8, #64                     // write(2, text, length)
        mov     x0, #2
        adr     x1, text
        mov     x2, #(end - text)
        svc     #0
        mov     x0, #126
        cmn     x23, #2                     // -ENOENT: its interpreter is not there
        b.ne    exit
        mov     x0, #127
        b       exit
usage:  mov     x0, #125
        b       exit
digits: lsr     w12, w9, #28                // so many hexadecimal digits of w9 from the left
        lsl     w9, w9, #4
        add     w13, w12, #'0'
        cmp     w12, #9
        b.ls    digit
        add     w13, w12, #('a' - 10)
digit:  strb    w13, [x10], #1
        subs    w11, w11, #1
        b.ne    digits
        ret
text:   .ascii  "orlop-init: the program can't be executed\n"
end:
name:   .asciz  "orlop-init"
