// The uvu tensor product of one edge, with its first and second derivatives.
//
//   out[p, k, u] += w[p, u] sum_i K_p[k, i] x[i, u],     K_p[k, i] = sum_j C_p[i, j, k] Y[j]
//
// for every path p = (block of x, degree of Y, degree of the output), channel u and components i, k.
// The form <g, out> is linear in each of x, Y, w and g, so every derivative is a sum of the same few
// products: `transform` (K x), its transpose (K^T g) and the outer product (g x^T, contracted with
// C for the gradient of Y).
//
// Channels are innermost and padded to whole vectors (see Layout): a block of x stays in registers
// while all paths that read it are done. Nothing here knows torch.
#pragma once

#include <cstdint>
#include <vector>

#include "simd.h"

namespace eqplugin {

constexpr int kMaxDim = 13;  // 2 l + 1 for l = 6

// What Python computed once per module (eqplugin/nn/product/plan.py writes it).
struct Plan {
  static constexpr int kHeader = 8, kGroupFields = 5, kPathFields = 4;
  int num_groups, num_paths, dim_x, dim_y, dim_out, num_weights, kernel_size, num_entries;
  const int32_t* groups;   // per group: 2 l1 + 1, channels, offset in x, first path, paths
  const int32_t* paths;    // per path: 2 l3 + 1, offset in out, offset in w, offset in K
  const int32_t* first;    // dim_y + 1: the entries of C that multiply Y[j]
  const int32_t* targets;  // per entry: its place in K

  explicit Plan(const int32_t* p)
      : num_groups(p[0]), num_paths(p[1]), dim_x(p[2]), dim_y(p[3]), dim_out(p[4]),
        num_weights(p[5]), kernel_size(p[6]), num_entries(p[7]), groups(p + kHeader),
        paths(groups + kGroupFields * num_groups), first(paths + kPathFields * num_paths),
        targets(first + dim_y + 1) {}

  int64_t size() const { return targets - groups + kHeader + num_entries; }
};

struct Path {
  int dim, out, weight, kernel;  // components; places in the natural layouts and in K
  int padded_out, padded_weight;
};

struct Group {
  int dim, channels, x, padded_channels, padded_x;
  std::vector<Path> paths;
};

// Places of the blocks when components come before channels and channels are padded.
template <typename T>
struct Layout {
  std::vector<Group> groups;
  int dim_x = 0, dim_out = 0, num_weights = 0;  // padded sizes
  bool weights_fit = true;  // padded weights are the natural ones: no copy is needed

  explicit Layout(const Plan& plan) {
    for (int n = 0; n < plan.num_groups; ++n) {
      const int32_t* g = plan.groups + Plan::kGroupFields * n;
      const int padded = Simd<T>::padded(g[1]);
      Group group{g[0], g[1], g[2], padded, dim_x, {}};
      dim_x += group.dim * padded;
      for (int m = g[3]; m < g[3] + g[4]; ++m) {
        const int32_t* p = plan.paths + Plan::kPathFields * m;
        group.paths.push_back({p[0], p[1], p[2], p[3], dim_out, num_weights});
        weights_fit = weights_fit && padded == g[1] && num_weights == p[2];
        dim_out += p[0] * padded;
        num_weights += padded;
      }
      groups.push_back(std::move(group));
    }
  }
};

// One node or edge from natural to padded layout and back ------------------------------------------

template <typename T>
void pack_x(const Layout<T>& layout, const T* __restrict x, T* __restrict packed) {
  std::memset(packed, 0, sizeof(T) * layout.dim_x);
  for (const Group& g : layout.groups)
    for (int u = 0; u < g.channels; ++u)
      for (int i = 0; i < g.dim; ++i)
        packed[g.padded_x + i * g.padded_channels + u] = x[g.x + u * g.dim + i];
}

template <typename T>
void unpack_x(const Layout<T>& layout, const T* __restrict packed, T* __restrict x) {
  for (const Group& g : layout.groups)
    for (int u = 0; u < g.channels; ++u)
      for (int i = 0; i < g.dim; ++i)
        x[g.x + u * g.dim + i] = packed[g.padded_x + i * g.padded_channels + u];
}

template <typename T>
void pack_out(const Layout<T>& layout, const T* __restrict out, T* __restrict packed) {
  std::memset(packed, 0, sizeof(T) * layout.dim_out);
  for (const Group& g : layout.groups)
    for (const Path& p : g.paths)
      for (int u = 0; u < g.channels; ++u)
        for (int k = 0; k < p.dim; ++k)
          packed[p.padded_out + k * g.padded_channels + u] = out[p.out + u * p.dim + k];
}

// Adds, because paths may share an output block.
template <typename T>
void unpack_out(const Layout<T>& layout, const T* __restrict packed, T* __restrict out) {
  for (const Group& g : layout.groups)
    for (const Path& p : g.paths)
      for (int u = 0; u < g.channels; ++u)
        for (int k = 0; k < p.dim; ++k)
          out[p.out + u * p.dim + k] += packed[p.padded_out + k * g.padded_channels + u];
}

template <typename T>
const T* pack_weights(const Layout<T>& layout, const T* w, T* packed) {
  if (layout.weights_fit) return w;
  for (const Group& g : layout.groups)
    for (const Path& p : g.paths)
      std::memcpy(packed + p.padded_weight, w + p.weight, sizeof(T) * g.channels);
  return packed;
}

template <typename T>
void unpack_weights(const Layout<T>& layout, const T* packed, T* w) {
  for (const Group& g : layout.groups)
    for (const Path& p : g.paths)
      std::memcpy(w + p.weight, packed + p.padded_weight, sizeof(T) * g.channels);
}

// Harmonics to kernels and back --------------------------------------------------------------------

template <typename T>
void build_kernels(const Plan& plan, const T* __restrict c, const T* y, T* __restrict kernels) {
  std::memset(kernels, 0, sizeof(T) * plan.kernel_size);
  for (int j = 0; j < plan.dim_y; ++j) {
    const T yj = y[j];
    for (int n = plan.first[j]; n < plan.first[j + 1]; ++n) kernels[plan.targets[n]] += c[n] * yj;
  }
}

template <typename T>
void contract_kernels(const Plan& plan, const T* c, const T* __restrict kernels, T* __restrict y) {
  for (int j = 0; j < plan.dim_y; ++j) {
    T sums[4] = {0, 0, 0, 0};  // independent chains: the adder's latency, not its rate, would bind
    int n = plan.first[j];
    const int end = plan.first[j + 1];
    for (; n + 4 <= end; n += 4)
      for (int m = 0; m < 4; ++m) sums[m] += c[n + m] * kernels[plan.targets[n + m]];
    for (; n < end; ++n) sums[0] += c[n] * kernels[plan.targets[n]];
    y[j] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
}

// Products on one edge -----------------------------------------------------------------------------

template <typename T, int D>
struct Product {
  using S = Simd<T>;
  using Vec = typename S::Vec;

  static void load(Vec (&v)[D], const T* p, int stride) {
    EQPLUGIN_UNROLL
    for (int i = 0; i < D; ++i) v[i] = S::load(p + i * stride);
  }
  static void store(const Vec (&v)[D], T* p, int stride) {
    EQPLUGIN_UNROLL
    for (int i = 0; i < D; ++i) S::store(p + i * stride, v[i]);
  }
  // Row k of K x; two chains, since one would wait for the multiplier
  static Vec transform(const T* k, const Vec (&x)[D]) {
    Vec even = k[0] * x[0];
    if constexpr (D == 1) return even;
    Vec odd = k[1] * x[1];
    EQPLUGIN_UNROLL
    for (int i = 2; i < D; i += 2) even += k[i] * x[i];
    EQPLUGIN_UNROLL
    for (int i = 3; i < D; i += 2) odd += k[i] * x[i];
    return even + odd;
  }

  // out += w (K x), all paths of a block of x
  static void forward(const Group& g, const T* kernels, const T* x, const T* w, T* out) {
    const int n = g.padded_channels;
    for (int u = 0; u < n; u += S::kLanes) {
      Vec xs[D];
      load(xs, x + u, n);
      for (const Path& p : g.paths) {
        const Vec weight = S::load(w + p.padded_weight + u);
        const T* k = kernels + p.kernel;
        T* o = out + p.padded_out + u;
        for (int row = 0; row < p.dim; ++row, k += D, o += n)
          S::store(o, S::load(o) + weight * transform(k, xs));
      }
    }
  }

  // Tangent of forward: out += w (K hx + HK x) + hw (K x), where HK is K of the tangent of Y
  static void forward_tangent(const Group& g, const T* kernels, const T* hkernels, const T* x,
                              const T* hx, const T* w, const T* hw, T* out) {
    const int n = g.padded_channels;
    for (int u = 0; u < n; u += S::kLanes) {
      Vec xs[D], hxs[D];
      load(xs, x + u, n);
      load(hxs, hx + u, n);
      for (const Path& p : g.paths) {
        const Vec weight = S::load(w + p.padded_weight + u);
        const Vec hweight = S::load(hw + p.padded_weight + u);
        const T *k = kernels + p.kernel, *hk = hkernels + p.kernel;
        T* o = out + p.padded_out + u;
        for (int row = 0; row < p.dim; ++row, k += D, hk += D, o += n)
          S::store(o, S::load(o) + weight * (transform(k, hxs) + transform(hk, xs)) +
                          hweight * transform(k, xs));
      }
    }
  }

  // One path: gx += K^T (w g),  gw = g . (K x),  outer[k, i] = sum_u (w g)_k x_i
  static void backward(const Path& p, int n, const T* kernels, const T* x, const T* w,
                       const T* grad, T* gx, T* gw, Vec* sums, T* outer) {
    for (int u = 0; u < n; u += S::kLanes) {
      Vec xs[D], gxs[D];
      load(xs, x + u, n);
      load(gxs, gx + u, n);
      const Vec weight = S::load(w + p.padded_weight + u);
      Vec weight_grad = S::zero();
      const T* k = kernels + p.kernel;
      const T* o = grad + p.padded_out + u;
      Vec* s = sums;
      for (int row = 0; row < p.dim; ++row, k += D, o += n, s += D) {
        const Vec go = S::load(o), wg = weight * go;
        weight_grad += go * transform(k, xs);
        EQPLUGIN_UNROLL
        for (int i = 0; i < D; ++i) {
          gxs[i] += k[i] * wg;
          s[i] = u == 0 ? wg * xs[i] : s[i] + wg * xs[i];
        }
      }
      S::store(gw + p.padded_weight + u, weight_grad);
      store(gxs, gx + u, n);
    }
    add_sums(sums, p.dim * D, outer + p.kernel);
  }

  // Tangent of backward along (hx, hY, hw) at fixed g, with the same outputs
  static void backward_tangent(const Path& p, int n, const T* kernels, const T* hkernels,
                               const T* x, const T* hx, const T* w, const T* hw, const T* grad,
                               T* gx, T* gw, Vec* sums, T* outer) {
    for (int u = 0; u < n; u += S::kLanes) {
      Vec xs[D], hxs[D], gxs[D];
      load(xs, x + u, n);
      load(hxs, hx + u, n);
      load(gxs, gx + u, n);
      const Vec weight = S::load(w + p.padded_weight + u);
      const Vec hweight = S::load(hw + p.padded_weight + u);
      Vec weight_grad = S::zero();
      const T *k = kernels + p.kernel, *hk = hkernels + p.kernel;
      const T* o = grad + p.padded_out + u;
      Vec* s = sums;
      for (int row = 0; row < p.dim; ++row, k += D, hk += D, o += n, s += D) {
        const Vec go = S::load(o), wg = weight * go, hwg = hweight * go;
        weight_grad += go * (transform(k, hxs) + transform(hk, xs));
        EQPLUGIN_UNROLL
        for (int i = 0; i < D; ++i) {
          gxs[i] += hk[i] * wg + k[i] * hwg;
          const Vec product = wg * hxs[i] + hwg * xs[i];
          s[i] = u == 0 ? product : s[i] + product;
        }
      }
      S::store(gw + p.padded_weight + u, weight_grad);
      store(gxs, gx + u, n);
    }
    add_sums(sums, p.dim * D, outer + p.kernel);
  }

  // Adds the sums over the lanes of `size` vectors to `to`; there is room for a whole last batch.
  static void add_sums(Vec* vectors, int size, T* to) {
    for (int n = size; n % S::kLanes; ++n) vectors[n] = S::zero();
    T sums[S::kLanes];
    for (int n = 0; n < size; n += S::kLanes) {
      S::reduce(vectors + n, sums);
      const int count = size - n < S::kLanes ? size - n : S::kLanes;
      for (int m = 0; m < count; ++m) to[n + m] += sums[m];
    }
  }
};

// Calls `f` with the number of components of a group as a compile-time constant.
template <typename F>
void with_dim(int dim, F&& f) {
  switch (dim) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 5: return f(std::integral_constant<int, 5>{});
    case 7: return f(std::integral_constant<int, 7>{});
    case 9: return f(std::integral_constant<int, 9>{});
    case 11: return f(std::integral_constant<int, 11>{});
    default: return f(std::integral_constant<int, kMaxDim>{});
  }
}

}  // namespace eqplugin
