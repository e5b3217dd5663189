/* What generated C needs of C itself; metered by build/meter.py. */
#pragma once
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;
typedef _Bool krait_bool;
typedef const char *krait_text;
#include <stddef.h>
#define CYTHON_UNUSED __attribute__((unused))
#define KRAIT_STORAGE __attribute__((unused, uninitialized))
#define likely(x) __builtin_expect(!!(x), 1)
#ifdef KRAIT_HOST
void krait_host_trap(const char *file, int line) __attribute__((noreturn));
#define krait_trap() krait_host_trap(__FILE__, __LINE__)
#else
#define krait_trap() __builtin_trap()
#endif
#define krait_check(ok) (likely(ok) ? (void)0 : krait_trap())
#define krait_copy(to, from, size) ((void)__builtin_memcpy(to, from, size))
#define krait_clear(to, size) ((void)__builtin_memset(to, 0, size))
#define krait_index(index, count) ({ u64 i_ = (index); krait_check(i_ < (count)); i_; })
#define krait_text_address(text) ((u64)(text))
/* Wrapping on purpose, in words that no sanitizer takes for a mistake. */
static inline u64 krait_add(u64 a, u64 b) { (void)__builtin_add_overflow(a, b, &a); return a; }
static inline u64 krait_sub(u64 a, u64 b) { (void)__builtin_sub_overflow(a, b, &a); return a; }
static inline u64 krait_mul(u64 a, u64 b) { (void)__builtin_mul_overflow(a, b, &a); return a; }
static inline u64 krait_shl(u64 a, u64 b) { return a << b; }
static inline u64 krait_min_u64(u64 a, u64 b) { return a < b ? a : b; }
static inline u64 krait_max_u64(u64 a, u64 b) { return a > b ? a : b; }
static inline i64 krait_min_i64(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 krait_max_i64(i64 a, i64 b) { return a > b ? a : b; }
static inline u64 krait_steps(u64 start, u64 stop, u64 step) { return stop > start ? (stop - start - 1) / step + 1 : 0; }
static inline u8 krait_char_at(krait_text text, u64 index) { return text ? (u8)text[index] : 0; }
