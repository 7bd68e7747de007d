// The example of the kernel's kcm.rst: a length of two bytes that counts those behind it. BPF_ABS gives 0 while they haven't come.
//
// All programs here: clang-19 -O2 --target=bpfel -c NAME.c -o NAME.o && llvm-objcopy-19 -O binary --only-section=framer NAME.o NAME.bin
struct __sk_buff;
unsigned long long load_half(void *skb, unsigned long long offset) asm("llvm.bpf.load.half");

__attribute__((section("framer"), used)) int dns(struct __sk_buff *skb)
{
	return load_half(skb, 0) + 2;
}
