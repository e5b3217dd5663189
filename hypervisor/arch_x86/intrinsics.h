/* Bodies of intrinsics.py: one instruction each where the machine has one. The only hand-written C of the project.
   Every function is hypervisor_arch_x86_intrinsics__NAME; X(NAME) writes that. */
#pragma once
#define X(name) hypervisor_arch_x86_intrinsics__##name
#define FN static inline __attribute__((unused, always_inline))

/* ports */
#define PORT(s, type) \
    FN type X(in##s)(u16 port) { type v; asm volatile("in" #s " %1, %0" : "=a"(v) : "Nd"(port)); return v; } \
    FN void X(out##s)(u16 port, type v) { asm volatile("out" #s " %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
PORT(b, u8) PORT(w, u16) PORT(l, u32)

/* registers: value in EDX:EAX, number in ECX */
#define NUMBERED(get, set, index) \
    FN u64 X(get)(u32 index) { u32 a, d; asm volatile(#get : "=a"(a), "=d"(d) : "c"(index)); return (u64)d << 32 | a; } \
    FN void X(set)(u32 index, u64 v) { asm volatile(#set : : "a"((u32)v), "d"((u32)(v >> 32)), "c"(index) : "memory"); }
NUMBERED(rdmsr, wrmsr, msr) NUMBERED(xgetbv, xsetbv, index)
#define REGISTER(r) \
    FN u64 X(read_##r)(void) { u64 v; asm volatile("mov %%" #r ", %0" : "=r"(v)); return v; } \
    FN void X(write_##r)(u64 v) { asm volatile("mov %0, %%" #r : : "r"(v) : "memory"); }
REGISTER(cr0) REGISTER(cr2) REGISTER(cr3) REGISTER(cr4)
REGISTER(dr0) REGISTER(dr1) REGISTER(dr2) REGISTER(dr3) REGISTER(dr6) REGISTER(dr7)
FN void X(cpuid)(u32 leaf, u32 subleaf, u64 registers) {
    u32 *r = (u32 *)registers;
    asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(subleaf));
}
FN u32 X(rdpkru)(void) { u32 a; asm volatile("rdpkru" : "=a"(a) : "c"(0) : "edx"); return a; }
FN void X(wrpkru)(u32 v) { asm volatile("wrpkru" : : "a"(v), "c"(0), "d"(0) : "memory"); }
FN _Bool X(rdrand)(u64 place) { _Bool good; asm volatile("rdrand %0" : "=r"(*(u64 *)place), "=@ccc"(good)); return good; }
FN u64 X(rdtsc)(void) { u32 a, d; asm volatile("rdtsc" : "=a"(a), "=d"(d)); return (u64)d << 32 | a; }

/* one instruction with the memory operand at an address */
#define ON_MEMORY(name, instruction) \
    FN void X(name)(u64 place) { asm volatile(instruction " (%0)" : : "r"(place) : "memory"); }
ON_MEMORY(lgdt, "lgdt") ON_MEMORY(lidt, "lidt") ON_MEMORY(invlpg, "invlpg")
ON_MEMORY(fxsave, "fxsave64") ON_MEMORY(fxrstor, "fxrstor64")
#define ON_AREA(name) FN void X(name)(u64 area, u64 mask) \
    { asm volatile(#name "64 (%0)" : : "r"(area), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory"); }
ON_AREA(xsave) ON_AREA(xrstor)
FN void X(ltr)(u16 selector) { asm volatile("ltr %0" : : "r"(selector) : "memory"); }

/* no operand */
#define PLAIN(name, text) FN void X(name)(void) { asm volatile(text : : : "memory"); }
PLAIN(cli, "cli") PLAIN(pause, "pause") PLAIN(wbinvd, "wbinvd") PLAIN(compiler_barrier, "")
PLAIN(halt_once, "sti; hlt; cli") PLAIN(interrupt_window, "sti; nop; cli") PLAIN(halt_forever, "1: cli; hlt; jmp 1b")
PLAIN(magic_break, "xchg %%bx, %%bx") PLAIN(raise_ud, "ud2") PLAIN(raise_nmi, "int $2")
PLAIN(overflow_stack, "1: push %%rax; jmp 1b")
PLAIN(sti, "sti") PLAIN(fninit, "fninit")
/* STAC and CLAC, as NOPs of the same length until guest_pages.py makes them what they are: a CPU without SMAP knows neither */
#ifdef __PIC__ /* host library */
#define WINDOW(name, code) PLAIN(name, "")
#else
#define WINDOW(name, code) PLAIN(name, "1: .byte 0x0F, 0x1F, " #code "; .pushsection .smap,\"a\"; .long 1b; .popsection")
#endif
WINDOW(stac, 0xCB) WINDOW(clac, 0xCA)
FN u64 X(interrupts_off)(void) { u64 flags; asm volatile("pushfq; pop %0; cli" : "=r"(flags) : : "memory"); return flags; }
FN void X(interrupts_restore)(u64 flags) { asm volatile("push %0; popfq" : : "r"(flags) : "memory", "cc"); }
FN u64 X(frame_pointer)(void) { return (u64)__builtin_frame_address(0); }
FN u64 X(current_cpu)(void) { return *(u64 *)((u64)__builtin_frame_address(0) & -0x10000ULL); } /* stacks.AREA_BYTES */

/* raw memory and atomics */
#define WIDTH(type) \
    typedef type __attribute__((may_alias, aligned(1))) X(any_##type); \
    FN type X(load_##type)(u64 place) { return *(volatile X(any_##type) *)place; } \
    FN void X(store_##type)(u64 place, type v) { *(volatile X(any_##type) *)place = v; }
WIDTH(u8) WIDTH(u16) WIDTH(u32) WIDTH(u64)
FN u64 X(atomic_load_u64)(u64 place) { return __atomic_load_n((u64 *)place, __ATOMIC_SEQ_CST); }
FN u64 X(atomic_or_u64)(u64 place, u64 v) { return __atomic_fetch_or((u64 *)place, v, __ATOMIC_SEQ_CST); }
FN u64 X(atomic_xchg_u64)(u64 place, u64 v) { return __atomic_exchange_n((u64 *)place, v, __ATOMIC_SEQ_CST); }
FN u64 X(atomic_add_u64)(u64 place, u64 v) { return __atomic_fetch_add((u64 *)place, v, __ATOMIC_SEQ_CST); }
FN void X(copy_memory)(u64 target, u64 source, u64 length) {
    u64 words = length >> 3;
    asm volatile("rep movsq; mov %3, %2; rep movsb"
                 : "+D"(target), "+S"(source), "+c"(words) : "r"(length & 7) : "memory");
}
FN void X(fill_memory)(u64 target, u8 value, u64 length) {
    u64 words = length >> 3;
    asm volatile("rep stosq; mov %2, %1; rep stosb"
                 : "+D"(target), "+c"(words) : "r"(length & 7), "a"(value * 0x0101010101010101ULL) : "memory");
}

/* arithmetic */
FN u32 X(bsr)(u32 bits) { return (u32)(31 - __builtin_clz(bits)); }
FN u64 X(bsf)(u64 bits) { return (u64)__builtin_ctzll(bits); }
FN u64 X(mul_shift)(u64 a, u64 b, u32 shift) { return (u64)((unsigned __int128)a * b >> shift); }

/* PV guests: the call into the hypervisor; and what guest_pv_drivers/start.S has */
#define CALL_BY(instruction) asm volatile(instruction : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(fourth) : "memory")
FN u64 X(hypercall)(_Bool svm, u64 number, u64 a, u64 b, u64 c, u64 d) {
    register u64 fourth asm("r8") = d;
    if (svm) CALL_BY("vmmcall"); else CALL_BY("vmcall");
    return number;
}
void X(thread_switch)(u64 save_rsp, u64 rsp);
void X(registers_exchange)(u64 frame, u64 spins, _Bool svm);

/* SVM */
FN void X(svm_enter)(u64 registers, u64 guest, u64 host) {
    asm volatile("push %%rbp; call svm_enter; pop %%rbp" /* svm/enter.S */
                 : "+D"(registers), "+a"(guest), "+d"(host)
                 : : "rcx", "rsi", "r8", "r9", "r10", "r11", "r13", "r14", "r15", "cc", "memory");
}
FN void X(vmsave)(u64 vmcb) { asm volatile("vmsave %0" : : "a"(vmcb) : "memory"); }

/* in entry.S */
_Bool X(probe_read)(u64 place);
_Bool X(probe_write)(u64 place);
_Bool X(probe_execute)(u64 place);

/* VT-x: a failing VMREAD or VMWRITE is a bug of ours and traps; vtx/enter.S has the rest */
#define ON_REGION(name) FN _Bool X(name)(u64 region) \
    { _Bool done; asm volatile(#name " %1" : "=@cca"(done) : "m"(region) : "memory"); return done; }
ON_REGION(vmxon) ON_REGION(vmclear) ON_REGION(vmptrld)
FN u64 X(vmread)(u32 field) {
    u64 v;
    asm goto("vmread %1, %0; jna %l[failed]" : "=r"(v) : "r"((u64)field) : "cc" : failed);
    return v;
failed: __builtin_trap();
}
FN void X(vmwrite)(u32 field, u64 value) {
    asm goto("vmwrite %1, %0; jna %l[failed]" : : "r"((u64)field), "rm"(value) : "cc", "memory" : failed);
    return;
failed: __builtin_trap();
}
#define INVALIDATE(name) FN void X(name)(u64 type, u64 low, u64 high) \
    { u64 descriptor[2] = {low, high}; asm volatile(#name " %0, %1" : : "m"(descriptor), "r"(type) : "cc", "memory"); }
INVALIDATE(invept) INVALIDATE(invvpid)
FN u16 X(read_cs)(void) { u16 v; asm("mov %%cs, %0" : "=r"(v)); return v; }
FN u16 X(read_tr)(void) { u16 v; asm("str %0" : "=r"(v)); return v; }
ON_MEMORY(sgdt, "sgdt") ON_MEMORY(sidt, "sidt")
u64 X(vtx_enter)(u64 registers, _Bool launched);
