// What every model's translation unit needs; precompiled once per set of flags.
#pragma once
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
#endif
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>

// Thrown by the runtime where Verilator would end the process.
struct HematiteStop final {
    int status;
    std::string message;
};

enum : int { HEMATITE_OK = 0, HEMATITE_FINISH = 1, HEMATITE_STOP = 2, HEMATITE_FATAL = 3, HEMATITE_EXCEPTION = 4 };

// The table that a model exports: `ModelTable` and `PortEntry` of src/ffi.rs.
struct HematitePort {
    const char* name;
    uint32_t bits;
    uint32_t direction;
};

// One change of an input before evaluation `at`: `Write` of src/stimulus.rs.
struct HematiteWrite {
    uint64_t at;
    void* port;
    uint64_t value;
    uint32_t bytes;
};

struct HematiteTable {
    uint32_t abi;
    uint32_t port_count;
    const HematitePort* ports;
    void* (*create)(uint64_t seed, void** addresses);
    void (*destroy)(void* sim);
    int (*eval)(void* sim);
    int (*replay)(void* sim, uint8_t* const* clocks, uint64_t clock_count, const HematiteWrite* writes,
                  uint64_t write_count, uint64_t evaluations);
    int (*trace_open)(void* sim, const char* path);
    int (*trace_dump)(void* sim, uint64_t time);
    int (*trace_close)(void* sim);
    const char* (*last_error)(void* sim);
};
