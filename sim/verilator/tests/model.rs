//! Handwritten Verilog through the whole path: build, load, drive, stop, trace, lint.

use hematite_verilator::{Direction, Drive, Error, Stimulus, StopKind, Verilate};

const COUNTER: &str = "
module counter(
  input clock, input reset, input enable, input [2:0] step,
  output reg [8:0] count, output [16:0] mid, output [63:0] square, output [99:0] wide, input [99:0] mirror_in,
  output [99:0] mirror_out
);
  initial count = 9'd0;
  always @(posedge clock)
    if (reset) count <= 9'd0;
    else if (enable) count <= count + {6'd0, step};
  assign mid = {8'hff, count};
  assign square = {55'd0, count} * {55'd0, count};
  assign wide = {91'd1, count};
  assign mirror_out = ~mirror_in;
endmodule
";

fn counter() -> Verilate {
    Verilate::new("counter").text("counter.v", COUNTER)
}

#[test]
fn a_model_counts_and_its_ports_are_as_declared() -> Result<(), Error> {
    let verilated = counter().build_shared()?;
    let port = |name: &str| verilated.ports().iter().find(|port| port.name == name).cloned();
    assert_eq!(
        port("step").map(|port| (port.bits, port.direction)),
        Some((3, Direction::Input))
    );
    assert_eq!(
        port("wide").map(|port| (port.bits, port.direction)),
        Some((100, Direction::Output))
    );
    assert_eq!(verilated.ports().len(), 10);

    let mut model = verilated.instantiate(1)?;
    let (clock, reset) = (model.input::<u8>("clock")?, model.input::<u8>("reset")?);
    let (enable, step) = (model.input::<u8>("enable")?, model.input::<u8>("step")?);
    let (count, mid) = (model.port::<u16>("count")?, model.port::<u32>("mid")?);
    let (square, wide) = (model.port::<u64>("square")?, model.wide("wide")?);
    model.set(reset, 0);
    model.set(enable, 1);
    // Only three bits fit: 0xfd is 5.
    model.set(step, 0xfd);
    model.eval()?;
    for cycle in 0..50 {
        assert_eq!(model.get(count), cycle * 5);
        model.set(clock, 1);
        model.eval()?;
        model.set(clock, 0);
        model.eval()?;
    }
    assert_eq!(model.get(count), 250);
    assert_eq!(model.get(mid), 0xff << 9 | 250);
    assert_eq!(model.get(square), 250 * 250);
    assert_eq!(model.get_wide(wide), [1 << 9 | 250, 0, 0, 0]);
    for (name, value) in [
        ("clock", 0),
        ("count", 250),
        ("mid", 0xff << 9 | 250),
        ("square", 250 * 250),
    ] {
        assert_eq!(model.get_any(model.any(name)?), value, "{name}");
    }
    let any_step = model.any("step")?;
    model.set_any(any_step, 0x1_0000_0003);
    assert_eq!(model.get(step), 3);
    Ok(())
}

#[test]
fn wide_ports_are_masked_to_their_width() -> Result<(), Error> {
    let mut model = counter().build_shared()?.instantiate(0)?;
    let (input, output) = (model.wide("mirror_in")?, model.wide("mirror_out")?);
    assert_eq!((input.bits(), input.words()), (100, 4));
    model.set_wide(input, &[0xffff_0000, 1, 2, 0xffff_ffff]);
    model.eval()?;
    assert_eq!(model.get_wide(output), [0x0000_ffff, !1, !2, 0]);
    model.set_wide(input, &[]);
    model.eval()?;
    assert_eq!(model.get_wide(output), [u32::MAX, u32::MAX, u32::MAX, 0xf]);
    Ok(())
}

#[test]
fn a_handle_of_the_wrong_width_or_direction_is_refused() -> Result<(), Error> {
    let model = counter().build_shared()?.instantiate(0)?;
    assert!(matches!(
        model.port::<u8>("count"),
        Err(Error::Width { bits: 9, .. })
    ));
    assert!(matches!(
        model.port::<u32>("count"),
        Err(Error::Width { bits: 9, .. })
    ));
    assert!(matches!(model.any("wide"), Err(Error::Width { bits: 100, .. })));
    assert!(matches!(model.wide("count"), Err(Error::Width { bits: 9, .. })));
    assert!(matches!(
        model.input::<u16>("count"),
        Err(Error::NotAnInput { .. })
    ));
    let Err(error) = model.port::<u8>("clk") else {
        panic!("there is no `clk`")
    };
    assert!(
        error.to_string().contains("clock"),
        "the message names the ports there are: {error}"
    );
    Ok(())
}

#[test]
#[should_panic(expected = "another model")]
fn a_handle_of_another_instance_is_refused() {
    let verilated = counter().build_shared().expect("the counter builds");
    let one = verilated.instantiate(0).expect("an instance");
    let mut other = verilated.instantiate(0).expect("an instance");
    let clock = one.input::<u8>("clock").expect("a clock");
    other.set(clock, 1);
}

#[test]
fn finish_stop_and_runtime_failures_are_errors() -> Result<(), Error> {
    // Verilator turns $fatal into a message on standard output and $stop.
    let verilog = "module ends(input [3:0] a, output y); always @* begin if (a == 4'd9) $fatal(1, \"nine\"); \
                   if (a == 4'd7) $finish; if (a == 4'd5) $stop; end assign y = !(a[3] & y); endmodule";
    let verilated = Verilate::new("ends").text("ends.v", verilog).build_shared()?;
    for (value, kind) in [
        (9, StopKind::Stop),
        (7, StopKind::Finish),
        (5, StopKind::Stop),
        (8, StopKind::Fatal),
    ] {
        let mut model = verilated.instantiate(0)?;
        let a = model.input::<u8>("a")?;
        model.set(a, 3);
        model.eval()?;
        model.set(a, value);
        let Err(Error::Stopped { kind: seen, message }) = model.eval() else {
            panic!("{value} does not stop")
        };
        assert_eq!(seen, kind, "{message}");
        assert!(message.contains("ends.v"), "{message}");
        model.set(a, 3);
        assert!(
            matches!(model.eval(), Err(Error::Stopped { .. })),
            "a stopped model stays stopped"
        );
    }
    Ok(())
}

#[test]
fn instances_do_not_share_state() -> Result<(), Error> {
    let verilated = counter().build_shared()?;
    let mut models = [verilated.instantiate(1)?, verilated.instantiate(2)?];
    for (model, cycles) in models.iter_mut().zip([3, 8]) {
        let (clock, enable) = (model.input::<u8>("clock")?, model.input::<u8>("enable")?);
        let step = model.input::<u8>("step")?;
        model.set(enable, 1);
        model.set(step, 1);
        model.eval()?;
        for level in [1, 0].repeat(cycles) {
            model.set(clock, level);
            model.eval()?;
        }
    }
    for (model, cycles) in models.iter().zip([3, 8]) {
        assert_eq!(model.get(model.port::<u16>("count")?), cycles);
    }
    Ok(())
}

#[test]
fn unreset_state_follows_the_seed() -> Result<(), Error> {
    let verilog = "module lazy(input clock, input [63:0] d, input load, output [63:0] q); reg [63:0] r; \
                   always @(posedge clock) if (load) r <= d; assign q = r; endmodule";
    let verilated = Verilate::new("lazy").text("lazy.v", verilog).build_shared()?;
    let first = |seed| {
        let mut model = verilated.instantiate(seed)?;
        model.eval()?;
        Ok::<_, Error>(model.get(model.port::<u64>("q")?))
    };
    assert_eq!(first(0)?, 0);
    assert_ne!(first(5)?, first(6)?);
    assert_eq!(first(5)?, first(5)?);
    Ok(())
}

#[test]
fn waves_are_read_back() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("counter.fst");
    let mut model = counter().waves(true).build_shared()?.instantiate(1)?;
    let (clock, enable) = (model.input::<u8>("clock")?, model.input::<u8>("enable")?);
    let step = model.input::<u8>("step")?;
    model.set(enable, 1);
    model.set(step, 3);
    model.trace_open(&path)?;
    assert!(
        matches!(model.trace_open(&path), Err(Error::Trace(_))),
        "one trace at a time"
    );
    for (half, level) in [0, 1].repeat(20).into_iter().enumerate() {
        model.set(clock, level);
        model.eval()?;
        model.trace_dump(half as u64 * 4000)?;
    }
    model.trace_close()?;

    let mut waves = wellen::simple::read(&path)?;
    let hierarchy = waves.hierarchy();
    let variable = hierarchy
        .all_vars()
        .map(|variable| &hierarchy[variable])
        .find(|variable| variable.name(hierarchy) == "count")
        .map(|variable| variable.signal_ref())
        .ok_or("no `count` in the waves")?;
    waves.load_signals(&[variable]);
    let times = waves.time_table().to_vec();
    let signal = waves.get_signal(variable).ok_or("no signal")?;
    let changes: Vec<_> = signal
        .iter_changes()
        .map(|(index, value)| (times[index as usize], value.to_bit_string().unwrap_or_default()))
        .map(|(time, bits)| (time, u64::from_str_radix(&bits, 2).unwrap_or(u64::MAX)))
        .collect();
    // Rising edges at 4 ns, 12 ns, 20 ns, ...: the count is 3 more after each.
    let expected: Vec<_> = (0..=20)
        .map(|edge| (if edge == 0 { 0 } else { edge * 8000 - 4000 }, edge * 3))
        .collect();
    assert_eq!(changes, expected);
    Ok(())
}

#[test]
fn a_model_without_waves_says_so() -> Result<(), Error> {
    let mut model = counter().build_shared()?.instantiate(0)?;
    let Err(Error::Trace(message)) = model.trace_open("never.fst") else {
        panic!("no waves in this model")
    };
    assert!(message.contains("without waves"), "{message}");
    Ok(())
}

#[test]
fn bad_verilog_is_an_error_with_the_place() -> Result<(), Error> {
    let result = Verilate::new("broken")
        .text("broken.v", "module broken(input a; endmodule")
        .build_shared();
    let Err(Error::Verilator { log, .. }) = result else {
        panic!("not Verilog")
    };
    assert!(log.contains("broken.v:1"), "{log}");
    Ok(())
}

#[test]
fn lint_sees_widths_latches_and_incomplete_cases() -> Result<(), Error> {
    hematite_verilator::lint(
        "module fine(input a, input unused, output y); assign y = ~a; endmodule",
        "fine",
    )?;
    for (top, verilog, warning) in [
        (
            "w",
            "module w(input [3:0] a, output [7:0] y); assign y = a; endmodule",
            "WIDTHEXPAND",
        ),
        (
            "l",
            "module l(input e, input d, output reg q); always @* if (e) q = d; endmodule",
            "LATCH",
        ),
        (
            "c",
            "module c(input [1:0] s, output reg y); always @* begin y = 0; case (s) 2'd0: y = 1; endcase end endmodule",
            "CASEINCOMPLETE",
        ),
        (
            "u",
            "module u(input [1:0] a, output [1:0] y); assign y = {y[0] & a[1], y[1] | a[0]}; endmodule",
            "UNOPTFLAT",
        ),
    ] {
        let Err(Error::Lint { log, .. }) = hematite_verilator::lint(verilog, top) else {
            panic!("{warning} went unseen")
        };
        assert!(log.contains(warning), "{log}");
    }
    Ok(())
}

#[test]
fn a_replay_ends_where_the_stepped_model_does() -> Result<(), Error> {
    let verilated = counter().build_shared()?;
    let mut models = [verilated.instantiate(3)?, verilated.instantiate(3)?];
    let mut counts = vec![];
    for (model, replayed) in models.iter_mut().zip([false, true]) {
        let (clock, enable) = (model.input::<u8>("clock")?, model.input::<u8>("enable")?);
        let (step, count) = (model.input::<u8>("step")?, model.port::<u16>("count")?);
        let mut stimulus = Stimulus::new(&[clock]);
        for at in 0..64u8 {
            // Bits beyond the port's three are dropped in both.
            let value = at.wrapping_mul(7);
            if replayed {
                stimulus.set(enable, u8::from(at % 5 != 0));
                stimulus.set(step, value);
                stimulus.eval();
            } else {
                model.set(clock, at % 2);
                model.set(enable, u8::from(at % 5 != 0));
                model.set(step, value);
                model.eval()?;
            }
        }
        model.replay(&stimulus)?;
        counts.push(model.get(count));
    }
    assert!(counts[0] > 0);
    assert_eq!(counts[0], counts[1]);
    Ok(())
}
