// Included last in a model's only translation unit, after HEMATITE_TOP (the Verilator class),
// HEMATITE_SYMBOL (the exported symbol), `hematite_ports`, `hematite_port_count` and `hematite_bind` are defined.
namespace {

struct Sim {
    VerilatedContext context;
    std::unique_ptr<HEMATITE_TOP> top;
#if VM_TRACE_FST
    std::unique_ptr<VerilatedFstC> fst;
#endif
    std::string error;
};

// No exception crosses into Rust: every entry goes through here.
template <class F> int guarded(Sim* sim, F body) {
    try {
        body();
        return HEMATITE_OK;
    } catch (const HematiteStop& stop) {
        sim->error = stop.message;
        return stop.status;
    } catch (const std::exception& exception) {
        sim->error = exception.what();
    } catch (...) {
        sim->error = "unknown C++ exception";
    }
    return HEMATITE_EXCEPTION;
}

void* sim_create(uint64_t seed, void** addresses) {
    auto sim = std::make_unique<Sim>();
    const int status = guarded(sim.get(), [&] {
        // 0: everything starts at zero. Anything else: unreset state starts random, from this seed.
        sim->context.randReset(seed ? 2 : 0);
        if (seed) sim->context.randSeed(static_cast<int>((seed ^ (seed >> 31)) & 0x7fffffff));
#if VM_TRACE_FST
        sim->context.traceEverOn(true);
#endif
        sim->top = std::make_unique<HEMATITE_TOP>(&sim->context, "top");
        hematite_bind(sim->top.get(), addresses);
    });
    return status == HEMATITE_OK ? sim.release() : nullptr;
}

int sim_eval(void* p) {
    auto* sim = static_cast<Sim*>(p);
    return guarded(sim, [sim] { sim->top->eval(); });
}

// A loop over the model and nothing else.
int sim_replay(void* p, uint8_t* const* clocks, uint64_t clock_count, const HematiteWrite* writes,
               uint64_t write_count, uint64_t evaluations) {
    auto* sim = static_cast<Sim*>(p);
    return guarded(sim, [=] {
        const HematiteWrite* write = writes;
        const HematiteWrite* const end = writes + write_count;
        for (uint64_t at = 0; at < evaluations; ++at) {
            for (uint64_t i = 0; i < clock_count; ++i) *clocks[i] = at & 1;
            for (; write != end && write->at <= at; ++write) {
                switch (write->bytes) {
                    case 1: *static_cast<uint8_t*>(write->port) = static_cast<uint8_t>(write->value); break;
                    case 2: *static_cast<uint16_t*>(write->port) = static_cast<uint16_t>(write->value); break;
                    case 4: *static_cast<uint32_t*>(write->port) = static_cast<uint32_t>(write->value); break;
                    default: *static_cast<uint64_t*>(write->port) = write->value;
                }
            }
            sim->top->eval();
        }
    });
}

int sim_trace_close(void* p) {
    auto* sim = static_cast<Sim*>(p);
    return guarded(sim, [sim] {
#if VM_TRACE_FST
        if (sim->fst) sim->fst->close();
        sim->fst.reset();
#endif
    });
}

int sim_trace_open(void* p, const char* path) {
    auto* sim = static_cast<Sim*>(p);
    return guarded(sim, [sim, path] {
#if VM_TRACE_FST
        if (sim->fst) throw HematiteStop{HEMATITE_EXCEPTION, "a trace is already open"};
        auto fst = std::make_unique<VerilatedFstC>();
        sim->top->trace(fst.get(), 99);
        fst->open(path);
        if (!fst->isOpen()) throw HematiteStop{HEMATITE_EXCEPTION, std::string("cannot write ") + path};
        sim->fst = std::move(fst);
#else
        throw HematiteStop{HEMATITE_EXCEPTION, "this model was built without waves"};
#endif
    });
}

int sim_trace_dump(void* p, uint64_t time) {
    auto* sim = static_cast<Sim*>(p);
    return guarded(sim, [sim, time] {
        sim->context.time(time);
#if VM_TRACE_FST
        if (sim->fst) sim->fst->dump(time);
#endif
    });
}

void sim_destroy(void* p) {
    auto* sim = static_cast<Sim*>(p);
    sim_trace_close(sim);
    guarded(sim, [sim] { sim->top->final(); });
    delete sim;
}

const char* sim_last_error(void* p) { return static_cast<Sim*>(p)->error.c_str(); }

const HematiteTable table = {
    2, hematite_port_count, hematite_ports, sim_create, sim_destroy, sim_eval, sim_replay,
    sim_trace_open, sim_trace_dump, sim_trace_close, sim_last_error,
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const HematiteTable* HEMATITE_SYMBOL() { return &table; }
