/* tiny ...: exits with the number of its arguments, its own name among them; as little as a program can be. */
#ifdef __aarch64__
__asm__(".globl _start\n_start:\n ldr x0, [sp]\n mov x8, #93\n svc #0\n");
#else
__asm__(".globl _start\n_start:\n mov (%rsp), %rdi\n mov $60, %eax\n syscall\n");
#endif
