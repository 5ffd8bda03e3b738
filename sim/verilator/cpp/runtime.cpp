// Verilator's runtime calls these for $finish, $stop and $fatal (VL_USER_*). Instead of ending the process
// they unwind to the model's boundary, where the shim turns them into a status.
#include "prelude.h"

static std::string where(const char* file, int line) {
    if (!file || !*file) return "";
    return std::string(file) + ":" + std::to_string(line);
}

void vl_finish(const char* file, int line, const char*) VL_MT_UNSAFE {
    throw HematiteStop{HEMATITE_FINISH, "$finish at " + where(file, line)};
}

void vl_stop(const char* file, int line, const char*) VL_MT_UNSAFE {
    throw HematiteStop{HEMATITE_STOP, "$stop at " + where(file, line)};
}

void vl_fatal(const char* file, int line, const char*, const char* message) VL_MT_UNSAFE {
    throw HematiteStop{HEMATITE_FATAL, where(file, line) + ": " + (message ? message : "")};
}
