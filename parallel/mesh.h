// The mesh: ranks arranged along named axes, outermost first (pipeline, data, shard, context,
// tensor).
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace osler {

enum class Axis { kPipeline, kData, kShard, kContext, kTensor };
inline constexpr int kAxes = 5;
// As configurations write them; by Axis.
inline constexpr std::array<std::string_view, kAxes> kAxisNames{"pipeline", "data", "shard",
                                                                "context", "tensor"};

struct MeshShape {
  std::array<int, kAxes> sizes{1, 1, 1, 1, 1};  // by Axis
  int size(Axis axis) const { return sizes[static_cast<size_t>(axis)]; }
};

// The axes with more than one rank, with their sizes: "pipeline2", "tensor4".
std::vector<std::string> NamesOf(const MeshShape& shape);

// An axis of size 1 is the identity. Axis groups are named as the axes. Owns the axis groups;
// `world` must outlive it. Not thread-safe.
class Mesh {
 public:
  // Config error when the product of the sizes is not the world's size: says both and how to launch
  // or what to set.
  // `devices`, where given, are the same ranks and carry what the axes do: tensors of a device,
  // while the world's are the CPU's. It must outlive the mesh too.
  static absl::StatusOr<Mesh> Create(const MeshShape& shape, Communicator& world,
                                     Communicator* devices = nullptr);
  Mesh(Mesh&&) = default;
  Communicator& comm(Axis axis) const { return *axes_[static_cast<size_t>(axis)]; }
  Communicator& world() const { return *world_; }
  // What a host has read of a device's tensors holds only if this returns (Communicator).
  void ThrowIfFailed() const {
    for (const auto& axis : axes_) axis->ThrowIfFailed();
  }
  const MeshShape& shape() const { return shape_; }
  // Where this rank stands on the axis: its rank in the axis' group.
  int coordinate(Axis axis) const { return comm(axis).rank(); }

 private:
  Mesh() = default;
  MeshShape shape_;
  Communicator* world_ = nullptr;
  std::array<std::unique_ptr<Communicator>, kAxes> axes_;
};

}  // namespace osler
