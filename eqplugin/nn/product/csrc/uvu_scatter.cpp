// eqplugin::uvu_scatter: gather, uvu tensor product, radial weights and scatter in one pass.
//
//   out[n] = sum over edges e with dst[e] = n of  TP(x[src[e]], Y[e]; w[e])
//
// with its first and second derivatives; see uvu_kernels.h for the algebra and
// eqplugin/nn/product/operators.py for how they become autograd formulas. No intermediate has
// both the edges and the product's width as dimensions. Every node is summed by one thread, over
// its edges in their given order: results do not depend on the number of threads.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "uvu_kernels.h"

namespace eqplugin {
namespace {

using at::Tensor;

// Edges grouped by one of their ends, in their given order within a group.
struct Grouped {
  std::vector<int64_t> edges, start;

  Grouped(const int64_t* ends, int64_t num_edges, int64_t num_nodes)
      : edges(num_edges), start(num_nodes + 1, 0) {
    for (int64_t e = 0; e < num_edges; ++e) ++start[ends[e] + 1];
    for (int64_t n = 0; n < num_nodes; ++n) start[n + 1] += start[n];
    std::vector<int64_t> next(start.begin(), start.end() - 1);
    for (int64_t e = 0; e < num_edges; ++e) edges[next[ends[e]]++] = e;
  }

  // Calls body(first node, last node) on every thread, with equal shares of edges and nodes.
  template <typename F>
  void for_nodes(const F& body) const {
    const int64_t nodes = start.size() - 1, work = nodes + edges.size();
    const int64_t shares = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), nodes));
    const auto first = [&](int64_t share) {
      int64_t low = 0, high = nodes;
      while (low < high) {
        const int64_t middle = (low + high) / 2;
        if ((start[middle] + middle) * shares < share * work) low = middle + 1;
        else high = middle;
      }
      return low;
    };
    at::parallel_for(0, shares, 1, [&](int64_t begin, int64_t end) {
      body(begin == 0 ? 0 : first(begin), end == shares ? nodes : first(end));
    });
  }
};

// The inputs that all operators share, checked once and made contiguous.
template <typename T>
struct Problem {
  Tensor x, y, w, dst, src, plan_tensor, coefficients;
  Plan plan;
  Layout<T> layout;
  int64_t nodes, edges;

  Problem(const Tensor& x_, const Tensor& y_, const Tensor& w_, const Tensor& dst_,
          const Tensor& src_, const Tensor& plan_, const Tensor& coefficients_)
      : x(x_.contiguous()), y(y_.contiguous()), w(w_.contiguous()), dst(dst_.contiguous()),
        src(src_.contiguous()), plan_tensor(plan_.contiguous()),
        coefficients(coefficients_.contiguous()), plan(read(plan_tensor)), layout(plan),
        nodes(x.size(0)), edges(y.size(0)) {
    check("x", x, nodes, plan.dim_x);
    check("y", y, edges, plan.dim_y);
    check("w", w, edges, plan.num_weights);
    TORCH_CHECK(coefficients.scalar_type() == x.scalar_type() &&
                    coefficients.numel() == plan.num_entries,
                "eqplugin: the coefficients of a tensor product do not fit its inputs");
    for (const auto& [name, index] : {std::pair{"dst", &dst}, std::pair{"src", &src}}) {
      TORCH_CHECK(index->dim() == 1 && index->size(0) == edges && index->scalar_type() == at::kLong,
                  "eqplugin: ", name, " must be int64 of shape (", edges, ",)");
      const int64_t* values = index->template const_data_ptr<int64_t>();
      for (int64_t e = 0; e < edges; ++e)
        TORCH_CHECK(values[e] >= 0 && values[e] < nodes, "eqplugin: ", name, "[", e,
                    "] = ", values[e], " is not one of the ", nodes, " nodes");
    }
  }

  static Plan read(const Tensor& t) {
    const char* damaged = "eqplugin: a damaged plan of a tensor product";
    TORCH_CHECK(t.numel() >= Plan::kHeader, damaged);
    const Plan plan(t.const_data_ptr<int32_t>());
    TORCH_CHECK(t.numel() == plan.size(), damaged);
    return plan;
  }

  // Shape and dtype of an input that comes per node or per edge
  void check(const char* name, const Tensor& t, int64_t rows, int64_t columns) const {
    TORCH_CHECK(t.dim() == 2 && t.size(0) == rows && t.size(1) == columns, "eqplugin: ", name,
                " must have shape (", rows, ", ", columns, "), not ", t.sizes());
    TORCH_CHECK(t.scalar_type() == x.scalar_type(), "eqplugin: ", name, " is ", t.scalar_type(),
                ", x is ", x.scalar_type());
  }

  Grouped by(const Tensor& ends) const {
    return Grouped(ends.const_data_ptr<int64_t>(), edges, nodes);
  }

  // Node features or gradients with channels innermost; (nodes, padded width)
  template <typename Pack>
  Tensor packed(const Tensor& t, int width, const Pack& pack) const {
    Tensor out = at::empty({nodes, width}, x.options());
    const T* from = t.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    const int64_t columns = t.size(1);
    at::parallel_for(0, nodes, 64, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) pack(layout, from + n * columns, to + n * width);
    });
    return out;
  }
  Tensor packed_x(const Tensor& t) const { return packed(t, layout.dim_x, pack_x<T>); }
  Tensor packed_out(const Tensor& t) const { return packed(t, layout.dim_out, pack_out<T>); }
};

template <typename T>
const T* row(const Tensor& t, int64_t n) {
  return t.const_data_ptr<T>() + n * t.size(1);
}

// What one thread needs besides the tensors.
template <typename T>
struct Workspace {
  using Vec = typename Simd<T>::Vec;
  const Plan& plan;
  const Layout<T>& layout;
  const T* coefficients;
  std::vector<T> kernels, hkernels, outer_sums, weights, hweights, weight_grads, node;
  std::vector<Vec> outer;

  Workspace(const Problem<T>& p, int node_width)
      : plan(p.plan), layout(p.layout), coefficients(p.coefficients.template const_data_ptr<T>()),
        kernels(plan.kernel_size), hkernels(plan.kernel_size), outer_sums(plan.kernel_size),
        weights(layout.num_weights), hweights(layout.num_weights),
        weight_grads(layout.num_weights), node(node_width) {
    outer.resize(Simd<T>::padded(kMaxDim * kMaxDim));
  }

  const T* kernel(const T* y, std::vector<T>& into) {
    build_kernels(plan, coefficients, y, into.data());
    return into.data();
  }

  void clear_node() { std::fill(node.begin(), node.end(), T(0)); }

  // Runs product(dim, path, group, gw, vectors, outer) on every path of an edge, then finishes the
  // gradients of the edge: gy (dim_y,) and gw (num_weights,)
  template <typename F>
  void edge_gradients(T* gy, T* gw, const F& product) {
    T* grads = layout.weights_fit ? gw : weight_grads.data();
    std::fill(outer_sums.begin(), outer_sums.end(), T(0));
    for (const Group& g : layout.groups)
      with_dim(g.dim, [&](auto dim) {
        for (const Path& p : g.paths) product(dim, p, g, grads, outer.data(), outer_sums.data());
      });
    contract_kernels(plan, coefficients, outer_sums.data(), gy);
    if (!layout.weights_fit) unpack_weights(layout, grads, gw);
  }
};

template <typename T>
Tensor forward(const Problem<T>& p) {
  Tensor out = at::zeros({p.nodes, p.plan.dim_out}, p.x.options());
  T* result = out.template mutable_data_ptr<T>();
  const Tensor x = p.packed_x(p.x);
  const int64_t* src = p.src.template const_data_ptr<int64_t>();
  const Grouped by_dst = p.by(p.dst);
  by_dst.for_nodes([&](int64_t begin, int64_t end) {
    Workspace<T> space(p, p.layout.dim_out);
    for (int64_t n = begin; n < end; ++n) {
      if (by_dst.start[n] == by_dst.start[n + 1]) continue;
      space.clear_node();
      for (int64_t m = by_dst.start[n]; m < by_dst.start[n + 1]; ++m) {
        const int64_t e = by_dst.edges[m];
        const T* k = space.kernel(row<T>(p.y, e), space.kernels);
        const T* w = pack_weights(p.layout, row<T>(p.w, e), space.weights.data());
        const T* xs = row<T>(x, src[e]);
        for (const Group& g : p.layout.groups)
          with_dim(g.dim, [&](auto dim) {
            Product<T, dim()>::forward(g, k, xs + g.padded_x, w, space.node.data());
          });
      }
      unpack_out(p.layout, space.node.data(), result + n * p.plan.dim_out);
    }
  });
  return out;
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> backward(const Problem<T>& p, const Tensor& grad) {
  Tensor gx = at::zeros_like(p.x), gy = at::empty_like(p.y), gw = at::empty_like(p.w);
  T* gx_data = gx.mutable_data_ptr<T>();
  T* gy_data = gy.mutable_data_ptr<T>();
  T* gw_data = gw.mutable_data_ptr<T>();
  const Tensor x = p.packed_x(p.x), g_out = p.packed_out(grad);
  const int64_t* dst = p.dst.template const_data_ptr<int64_t>();
  const Grouped by_src = p.by(p.src);
  by_src.for_nodes([&](int64_t begin, int64_t end) {
    Workspace<T> space(p, p.layout.dim_x);
    for (int64_t n = begin; n < end; ++n) {
      if (by_src.start[n] == by_src.start[n + 1]) continue;
      space.clear_node();
      const T* xs = row<T>(x, n);
      for (int64_t m = by_src.start[n]; m < by_src.start[n + 1]; ++m) {
        const int64_t e = by_src.edges[m];
        const T* k = space.kernel(row<T>(p.y, e), space.kernels);
        const T* w = pack_weights(p.layout, row<T>(p.w, e), space.weights.data());
        const T* go = row<T>(g_out, dst[e]);
        space.edge_gradients(
            gy_data + e * p.plan.dim_y, gw_data + e * p.plan.num_weights,
            [&](auto dim, const Path& path, const Group& g, T* gws, auto* sums, T* outer) {
              Product<T, dim()>::backward(path, g.padded_channels, k, xs + g.padded_x, w, go,
                                          space.node.data() + g.padded_x, gws, sums, outer);
            });
      }
      unpack_x(p.layout, space.node.data(), gx_data + n * p.plan.dim_x);
    }
  });
  return {gx, gy, gw};
}

// Derivatives of <hx, gx> + <hy, gy> + <hw, gw> by grad, x, y and w
template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor> double_backward(const Problem<T>& p, const Tensor& hx_,
                                                           const Tensor& hy, const Tensor& hw,
                                                           const Tensor& grad) {
  Tensor gg = at::zeros_like(grad);
  Tensor gx = at::zeros_like(p.x), gy = at::empty_like(p.y), gw = at::empty_like(p.w);
  T* gg_data = gg.mutable_data_ptr<T>();
  T* gx_data = gx.mutable_data_ptr<T>();
  T* gy_data = gy.mutable_data_ptr<T>();
  T* gw_data = gw.mutable_data_ptr<T>();
  const Tensor x = p.packed_x(p.x), hx = p.packed_x(hx_), g_out = p.packed_out(grad);
  const int64_t* dst = p.dst.template const_data_ptr<int64_t>();
  const int64_t* src = p.src.template const_data_ptr<int64_t>();
  const Layout<T>& layout = p.layout;

  const Grouped by_dst = p.by(p.dst);
  by_dst.for_nodes([&](int64_t begin, int64_t end) {
    Workspace<T> space(p, layout.dim_out);
    for (int64_t n = begin; n < end; ++n) {
      if (by_dst.start[n] == by_dst.start[n + 1]) continue;
      space.clear_node();
      for (int64_t m = by_dst.start[n]; m < by_dst.start[n + 1]; ++m) {
        const int64_t e = by_dst.edges[m];
        const T* k = space.kernel(row<T>(p.y, e), space.kernels);
        const T* hk = space.kernel(row<T>(hy, e), space.hkernels);
        const T* w = pack_weights(layout, row<T>(p.w, e), space.weights.data());
        const T* hws = pack_weights(layout, row<T>(hw, e), space.hweights.data());
        const T *xs = row<T>(x, src[e]), *hxs = row<T>(hx, src[e]);
        for (const Group& g : layout.groups)
          with_dim(g.dim, [&](auto dim) {
            Product<T, dim()>::forward_tangent(g, k, hk, xs + g.padded_x, hxs + g.padded_x, w, hws,
                                               space.node.data());
          });
      }
      unpack_out(layout, space.node.data(), gg_data + n * p.plan.dim_out);
    }
  });

  const Grouped by_src = p.by(p.src);
  by_src.for_nodes([&](int64_t begin, int64_t end) {
    Workspace<T> space(p, layout.dim_x);
    for (int64_t n = begin; n < end; ++n) {
      if (by_src.start[n] == by_src.start[n + 1]) continue;
      space.clear_node();
      const T *xs = row<T>(x, n), *hxs = row<T>(hx, n);
      for (int64_t m = by_src.start[n]; m < by_src.start[n + 1]; ++m) {
        const int64_t e = by_src.edges[m];
        const T* k = space.kernel(row<T>(p.y, e), space.kernels);
        const T* hk = space.kernel(row<T>(hy, e), space.hkernels);
        const T* w = pack_weights(layout, row<T>(p.w, e), space.weights.data());
        const T* hws = pack_weights(layout, row<T>(hw, e), space.hweights.data());
        const T* go = row<T>(g_out, dst[e]);
        space.edge_gradients(
            gy_data + e * p.plan.dim_y, gw_data + e * p.plan.num_weights,
            [&](auto dim, const Path& path, const Group& g, T* gws, auto* sums, T* outer) {
              Product<T, dim()>::backward_tangent(
                  path, g.padded_channels, k, hk, xs + g.padded_x, hxs + g.padded_x, w, hws, go,
                  space.node.data() + g.padded_x, gws, sums, outer);
            });
      }
      unpack_x(layout, space.node.data(), gx_data + n * p.plan.dim_x);
    }
  });
  return {gg, gx, gy, gw};
}

// Calls `f` with the element type as a template argument.
template <typename F>
auto with_dtype(const Tensor& x, const F& f) {
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble,
              "eqplugin: the compiled product knows float32 and float64, not ", x.scalar_type());
  return x.scalar_type() == at::kFloat ? f(float()) : f(double());
}

Tensor uvu_scatter(const Tensor& x, const Tensor& y, const Tensor& w, const Tensor& dst,
                   const Tensor& src, const Tensor& plan, const Tensor& coefficients, int64_t) {
  return with_dtype(x, [&](auto zero) {
    return forward(Problem<decltype(zero)>(x, y, w, dst, src, plan, coefficients));
  });
}

std::tuple<Tensor, Tensor, Tensor> uvu_scatter_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const Tensor& w, const Tensor& dst,
    const Tensor& src, const Tensor& plan, const Tensor& coefficients) {
  return with_dtype(x, [&](auto zero) {
    const Problem<decltype(zero)> p(x, y, w, dst, src, plan, coefficients);
    p.check("the gradient", grad, p.nodes, p.plan.dim_out);
    return backward(p, grad.contiguous());
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> uvu_scatter_double_backward(
    const Tensor& hx, const Tensor& hy, const Tensor& hw, const Tensor& grad, const Tensor& x,
    const Tensor& y, const Tensor& w, const Tensor& dst, const Tensor& src, const Tensor& plan,
    const Tensor& coefficients) {
  return with_dtype(x, [&](auto zero) {
    const Problem<decltype(zero)> p(x, y, w, dst, src, plan, coefficients);
    p.check("the gradient", grad, p.nodes, p.plan.dim_out);
    p.check("hx", hx, p.nodes, p.plan.dim_x);
    p.check("hy", hy, p.edges, p.plan.dim_y);
    p.check("hw", hw, p.edges, p.plan.num_weights);
    return double_backward(p, hx.contiguous(), hy.contiguous(), hw.contiguous(),
                           grad.contiguous());
  });
}

}  // namespace
}  // namespace eqplugin

TORCH_LIBRARY(eqplugin, m) {
  m.def(
      "uvu_scatter(Tensor x, Tensor y, Tensor w, Tensor dst, Tensor src, Tensor plan, "
      "Tensor coefficients, int dim_out) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "uvu_scatter_backward(Tensor grad, Tensor x, Tensor y, Tensor w, Tensor dst, Tensor src, "
      "Tensor plan, Tensor coefficients) -> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "uvu_scatter_double_backward(Tensor hx, Tensor hy, Tensor hw, Tensor grad, Tensor x, "
      "Tensor y, Tensor w, Tensor dst, Tensor src, Tensor plan, Tensor coefficients) "
      "-> (Tensor, Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(eqplugin, CPU, m) {
  m.impl("uvu_scatter", &eqplugin::uvu_scatter);
  m.impl("uvu_scatter_backward", &eqplugin::uvu_scatter_backward);
  m.impl("uvu_scatter_double_backward", &eqplugin::uvu_scatter_double_backward);
}
