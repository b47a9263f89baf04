#include "parallel/mesh.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "base/torch_status.h"

namespace osler {
namespace {

constexpr auto kDataAxis = static_cast<size_t>(Axis::kData);

// Stages hand on what they computed, rings their keys.
bool Transfers(Axis axis) { return axis == Axis::kPipeline || axis == Axis::kContext; }

std::string Describe(const MeshShape& shape) {
  std::vector<std::string> parts;
  for (size_t a = 0; a < kAxes; ++a) {
    if (shape.sizes[a] > 1)
      parts.push_back(absl::StrCat(std::string(kAxisNames[a]), ": ", shape.sizes[a]));
  }
  return parts.empty() ? "every axis is 1" : absl::StrJoin(parts, ", ");
}

absl::Status CheckShape(const MeshShape& shape, int world_size) {
  int64_t ranks = 1;
  for (size_t a = 0; a < kAxes; ++a) {
    if (shape.sizes[a] < 1) {
      return ConfigError(absl::StrCat("mesh.", std::string(kAxisNames[a]), " is ", shape.sizes[a],
                                      ": an axis has at least one rank"));
    }
    if (__builtin_mul_overflow(ranks, int64_t{shape.sizes[a]}, &ranks)) {
      return ConfigError("the mesh has more ranks than can be counted: lower its axes");
    }
  }
  if (ranks == world_size) return absl::OkStatus();
  std::string fix = absl::StrCat("run under mpirun -n ", ranks);
  const int64_t others = ranks / shape.sizes[kDataAxis];
  if (world_size % others == 0)
    absl::StrAppend(&fix, ", or set mesh.data to ", world_size / others);
  return ConfigError(absl::StrCat("the mesh (", Describe(shape), ") needs ", ranks,
                                  ranks == 1 ? " rank" : " ranks", ", but ", world_size,
                                  world_size == 1 ? " runs: " : " run: ", fix));
}

}  // namespace

std::vector<std::string> NamesOf(const MeshShape& shape) {
  std::vector<std::string> names;
  for (size_t a = 0; a < kAxes; ++a) {
    if (shape.sizes[a] > 1)
      names.push_back(absl::StrCat(std::string(kAxisNames[a]), shape.sizes[a]));
  }
  return names;
}

absl::StatusOr<Mesh> Mesh::Create(const MeshShape& shape, Communicator& world,
                                  Communicator* devices) {
  OSLER_RETURN_IF_ERROR(CheckShape(shape, world.size()));
  Mesh mesh;
  mesh.shape_ = shape;
  mesh.world_ = &world;
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    int stride =
        world.size();  // ranks between neighbours along the axis; the last axis varies fastest
    for (size_t a = 0; a < kAxes; ++a) {
      const int size = shape.sizes[a];
      const int block = stride;
      stride /= size;
      if (size == 1) {
        mesh.axes_[a] = MakeSingleCommunicator();
        continue;
      }
      // Ranks that agree in every other coordinate form this axis' group.
      const int coordinate = world.rank() % block / stride;
      Communicator& all = devices == nullptr ? world : *devices;
      mesh.axes_[a] = all.Split(world.rank() - coordinate * stride, coordinate, kAxisNames[a]);
      if (Transfers(static_cast<Axis>(a))) mesh.axes_[a]->PrepareTransfers();
    }
    return absl::OkStatus();
  }));
  return mesh;
}

}  // namespace osler
