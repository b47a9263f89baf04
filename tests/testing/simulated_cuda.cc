#include "tests/testing/simulated_cuda.h"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

namespace osler::testing {
namespace {

const std::atomic<bool>* default_waits = nullptr;

// Sometimes, for a while.
void Dawdle() {
  thread_local std::minstd_rand random{std::random_device{}()};
  if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
}

struct Point {  // in a stream
  std::mutex mutex;
  std::condition_variable passed;
  bool done = false;

  void Pass() {
    const std::lock_guard lock(mutex);
    done = true;
    passed.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex);
    passed.wait(lock, [&] { return done; });
  }
};

struct Event {
  std::shared_ptr<Point> point;  // of the last Record; null: none
};

// Ends by itself when it has been closed and everything in it is done.
class Stream {
 public:
  static std::shared_ptr<Stream> Open() {
    auto stream = std::make_shared<Stream>();
    std::thread([stream] { stream->Run(); }).detach();
    return stream;
  }
  void Push(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_all();
  }
  void Close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  void Run() {
    while (true) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return closed_ || !tasks_.empty(); });
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      Dawdle();
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool closed_ = false;
};

cudaError_t StreamCreate(cudaStream_t* stream, unsigned) {
  *stream = MakeHandle<cudaStream_t>(Stream::Open());
  return cudaSuccess;
}
cudaError_t StreamDestroy(cudaStream_t stream) {
  Get<Stream>(stream)->Close();
  delete &Get<Stream>(stream);
  return cudaSuccess;
}
cudaError_t EventCreate(cudaEvent_t* event, unsigned) {
  *event = MakeHandle<cudaEvent_t>(std::make_shared<Event>());
  return cudaSuccess;
}
cudaError_t EventDestroy(cudaEvent_t event) {
  delete &Get<Event>(event);
  return cudaSuccess;
}
cudaError_t EventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto point = std::make_shared<Point>();
  Get<Event>(event)->point = point;
  if (stream == nullptr) {
    point->Pass();
  } else {
    Get<Stream>(stream)->Push([point] { point->Pass(); });
  }
  return cudaSuccess;
}
cudaError_t EventQuery(cudaEvent_t event) {
  const std::shared_ptr<Point> point = Get<Event>(event)->point;
  if (point == nullptr) return cudaSuccess;
  const std::lock_guard lock(point->mutex);
  return point->done ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t StreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::shared_ptr<Point> point = Get<Event>(event)->point;
  if (point == nullptr) return cudaSuccess;
  if (stream != nullptr) {
    Get<Stream>(stream)->Push([point] { point->Wait(); });
  } else if (*default_waits) {
    point->Wait();
  }
  return cudaSuccess;
}
cudaError_t MemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                        cudaStream_t stream) {
  Get<Stream>(stream)->Push([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t Malloc(void** memory, size_t bytes) {
  *memory = std::calloc(1, bytes);
  return cudaSuccess;
}
cudaError_t Free(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t GetDeviceCount(int* count) {
  *count = 1024;
  return cudaSuccess;
}

}  // namespace

void PushTo(cudaStream_t stream, std::function<void()> task) {
  Get<Stream>(stream)->Push(std::move(task));
}

void SimulateCuda(const std::atomic<bool>& default_stream_waits, NcclLibrary& library) {
  default_waits = &default_stream_waits;
  library.cudaGetErrorString = [](cudaError_t) -> const char* { return "simulated"; };
  library.cudaGetDeviceCount = GetDeviceCount;
  library.cudaSetDevice = [](int) { return cudaSuccess; };
  library.cudaMalloc = Malloc;
  library.cudaFree = Free;
  library.cudaMemcpyAsync = MemcpyAsync;
  library.cudaStreamCreateWithFlags = StreamCreate;
  library.cudaStreamDestroy = StreamDestroy;
  library.cudaStreamWaitEvent = StreamWaitEvent;
  library.cudaEventCreateWithFlags = EventCreate;
  library.cudaEventRecord = EventRecord;
  library.cudaEventQuery = EventQuery;
  library.cudaEventDestroy = EventDestroy;
}

}  // namespace osler::testing
