// From a configuration to how a run is laid out on its ranks and reads its data.
#pragma once

#include "absl/status/statusor.h"
#include "configs/schema/train.pb.h"
#include "data/encoder.h"
#include "data/plan.h"
#include "parallel/mesh.h"
#include "trainer/place_model.h"
#include "trainer/step.h"

namespace osler {

// mesh.data, where the configuration leaves it out, is what the other axes leave of the ranks;
// config error when they do not divide them.
absl::StatusOr<MeshShape> MeshShapeOf(const config::Mesh& mesh, int world_size);

PlaceOptions PlaceOptionsOf(const config::Train& config);
StepOptions StepOptionsOf(const config::Train& config);
at::ScalarType DtypeOf(config::Precision precision);  // of parameters and activations
PlanOptions PlanOptionsOf(const config::Train& config);
EncoderOptions EncoderOptionsOf(const config::Train& config, int64_t vocab_size);

}  // namespace osler
