#include "base/torch_status.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>

#include "base/errors.h"

namespace osler {
namespace {

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

absl::Status CatchTorch(absl::FunctionRef<absl::Status()> body) {
  try {
    return body();
  } catch (const c10::OutOfMemoryError& e) {
    return DeviceError("out of memory: " + FirstLine(e.what_without_backtrace()));
  } catch (const c10::DistError& e) {
    return CommunicationError(FirstLine(e.what_without_backtrace()));
  } catch (const c10::Error& e) {
    const std::string message = FirstLine(e.what_without_backtrace());
    if (message.find("can't allocate memory") != std::string::npos) {  // the CPU allocator's words
      return DeviceError("out of memory: " + message);
    }
    return MakeError(ExitCode::kBug, message);
  } catch (const std::bad_alloc&) {
    return DeviceError("out of memory");
  } catch (const std::exception& e) {
    return MakeError(ExitCode::kBug, FirstLine(e.what()));
  } catch (...) {
    return MakeError(ExitCode::kBug, "unknown exception");
  }
}

}  // namespace osler
