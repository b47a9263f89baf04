// What CUDA's run-time library says of the devices of this machine, without torch: it opens none.
#pragma once

extern "C" {
// How many devices there are, into *count; a cudaError_t, with *count 0 where there is no driver.
int osler_cuda_device_count(int* count);
// Its name, as text of less than `size` bytes, and its compute capability, 10 · major + minor.
int osler_cuda_device_facts(int device, char* name, int size, int* capability);
const char* osler_cuda_error_text(int error);
}
