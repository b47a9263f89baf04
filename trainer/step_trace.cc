#include "trainer/step_trace.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <set>
#include <utility>

#include "base/torch_status.h"

namespace osler {

StepTrace::StepTrace(at::Device device) : on_(true) {
  using torch::profiler::impl::ActivityType;
  using torch::profiler::impl::ProfilerConfig;
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (!device.is_cpu()) activities.insert(ActivityType::CUDA);
  const ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  torch::autograd::profiler::prepareProfiler(config, activities);
  torch::autograd::profiler::enableProfiler(config, activities);
}

StepTrace::~StepTrace() {
  if (on_) torch::autograd::profiler::disableProfiler();
}

absl::Status StepTrace::Save(const std::string& path) {
  return CatchTorch([&] {
    on_ = false;
    torch::autograd::profiler::disableProfiler()->save(path);
    return absl::OkStatus();
  });
}

}  // namespace osler
