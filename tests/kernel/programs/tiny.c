/* tiny ...: exits with the number of its arguments, its own name among them; as little as a program can be. */
__asm__(".globl _start\n_start:\n mov (%rsp), %rdi\n mov $60, %eax\n syscall\n");
