// Vectors of the widest registers the compiler may use, through GCC's and Clang's vector extensions.
#pragma once

#include <cstring>
#include <utility>

// Before a loop of few, constant steps over an array of vectors: unrolled, the array is registers.
#if defined(__clang__)
#define EQPLUGIN_UNROLL _Pragma("unroll")
#else
#define EQPLUGIN_UNROLL _Pragma("GCC unroll 16")
#endif

namespace eqplugin {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;  // SSE2, NEON
#endif

template <typename T>
struct Simd {
  typedef T Vec __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = kVectorBytes / sizeof(T);

  static Vec load(const T* p) {
    Vec v;
    std::memcpy(&v, p, sizeof(Vec));
    return v;
  }
  static void store(T* p, Vec v) { std::memcpy(p, &v, sizeof(Vec)); }
  static Vec zero() { return Vec{}; }

  // Smallest multiple of the vector length that holds n channels.
  static constexpr int padded(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

  // Sums over the lanes of kLanes vectors at once: out[r] = sum of all lanes of vectors[r].
  //
  // A tree of log2(kLanes) stages; each adds the halves of every block of two vectors and packs
  // the results into one, about three instructions per sum instead of a dozen.
  static void reduce(const Vec* vectors, T* out) {
    Vec v[kLanes];
    EQPLUGIN_UNROLL
    for (int i = 0; i < kLanes; ++i) v[i] = vectors[i];
    stage<kLanes>(v);
    store(out, v[0]);
  }

 private:
  // Lane of the pair (a, b) that goes to `lane` when blocks of S lanes are folded.
  static constexpr int source(int S, int lane, int high) {
    const int half = S / 2, block = lane / half;
    return (block % 2) * kLanes + (block / 2) * S + lane % half + (high ? half : 0);
  }

  template <int S, int... I>
  static Vec fold(Vec a, Vec b, std::integer_sequence<int, I...>) {
#if (defined(__clang__) || __GNUC__ >= 12) && !defined(EQPLUGIN_OLD_SHUFFLE)
    return __builtin_shufflevector(a, b, source(S, I, 0)...) +
           __builtin_shufflevector(a, b, source(S, I, 1)...);
#else
    typedef decltype(a < b) Mask;
    return __builtin_shuffle(a, b, Mask{source(S, I, 0)...}) +
           __builtin_shuffle(a, b, Mask{source(S, I, 1)...});
#endif
  }

  template <int S>
  static void stage(Vec* v) {
    if constexpr (S > 1) {
      EQPLUGIN_UNROLL
      for (int i = 0; i < S / 2; ++i)
        v[i] = fold<S>(v[i], v[i + S / 2], std::make_integer_sequence<int, kLanes>{});
      stage<S / 2>(v);
    }
  }
};

}  // namespace eqplugin
