"""The recorder in other kernels: Debian's cloud kernels booted under qemu, no KVM needed, with a root file system made for it."""
