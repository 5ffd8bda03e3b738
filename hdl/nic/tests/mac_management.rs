//! The port's registers: settings, what the PHY says, and time.
#![allow(missing_docs)]

use hematite_abi::port;
use hematite_nic::mac::Management;
use hematite_testbench::{Bench, Dut, Error, cases, ns};
use rand::RngExt;

/// An access, as the register bus makes it; what was read.
fn access(bench: &mut Bench, register: u32, write: Option<(u32, u8)>) -> Result<u32, Error> {
    bench.set("access_address", (0x6000 + register).into())?;
    let (data, enables) = write.unwrap_or((0, 0xf));
    bench.set("access_write_data", data.into())?;
    bench.set("access_byte_enables", enables.into())?;
    bench.set("access_write", write.is_some().into())?;
    bench.set("access_valid", 1)?;
    let cycles = bench.run_until(8, |b| matches!(b.get("access_ready"), Ok(1)))?;
    assert!(cycles <= 3, "{cycles}");
    let read = bench.get("access_read_data")? as u32;
    bench.tick()?;
    bench.set("access_valid", 0)?;
    bench.tick()?;
    Ok(read)
}

fn read(bench: &mut Bench, register: u32) -> Result<u32, Error> {
    access(bench, register, None)
}

/// Low word first: it holds the high one.
fn time(bench: &mut Bench, register: u32) -> Result<u64, Error> {
    let low = u64::from(read(bench, register)?);
    Ok(u64::from(read(bench, register + 4)?) << 32 | low)
}

#[test]
fn settings_are_kept_byte_by_byte_until_they_are_cleared() {
    let dut = Dut::new(&Management::default()).unwrap();
    cases(6, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        bench.reset(&["reset"], 3)?;
        let all = port::OBEY_PAUSE | port::SEND_PAUSE | port::LOOPBACK;
        let mut control = 0;
        for _ in 0..40 {
            let (data, enables): (u32, u8) = (rng.random(), rng.random_range(0..16));
            match rng.random_range(0..4) {
                0 => {
                    bench.set("clear", 1)?;
                    bench.tick()?;
                    bench.set("clear", 0)?;
                    control = 0;
                }
                // Not to be written.
                1 => {
                    let register = [port::STATUS, port::TIME, port::RX_TIME, 0x80][rng.random_range(0..4)];
                    access(&mut bench, register, Some((data, 0xf)))?;
                }
                _ => {
                    access(&mut bench, port::CONTROL, Some((data, enables)))?;
                    if enables & 1 != 0 {
                        control = data & all;
                    }
                }
            }
            assert_eq!(read(&mut bench, port::CONTROL)?, control);
            for (pin, bit) in [
                ("obey_pause", port::OBEY_PAUSE),
                ("send_pause", port::SEND_PAUSE),
                ("loopback", port::LOOPBACK),
            ] {
                assert_eq!(bench.get(pin)? != 0, control & bit != 0, "{pin}");
            }
            assert_eq!(read(&mut bench, 0x80)?, 0, "an unknown register");
        }
        Ok(())
    });
}

#[test]
fn the_phy_is_believed_once_its_pins_agree() {
    let dut = Dut::new(&Management::default()).unwrap();
    cases(6, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        bench.reset(&["reset"], 3)?;
        for _ in 0..40 {
            let (up, speed, full, paused): (bool, u32, bool, bool) =
                (rng.random(), rng.random_range(0..4), rng.random(), rng.random());
            bench.set(
                "phy_pins",
                u128::from(u32::from(up) | speed << 1 | u32::from(full) << 3),
            )?;
            bench.set("paused", paused.into())?;
            bench.run(5)?;
            // Pins that change at different times are something else for a cycle, which is not passed on.
            let before = bench.get("phy")?;
            bench.set("phy_pins", rng.random_range(0..16))?;
            bench.tick()?;
            bench.set("phy_pins", before)?;
            for _ in 0..6 {
                bench.tick()?;
                assert_eq!(bench.get("phy")?, before);
            }
            let flag = |on: bool, bit: u32| if on { bit } else { 0 };
            let expected = flag(up, port::LINK_UP)
                | flag(full, port::FULL_DUPLEX)
                | flag(paused, port::PAUSED)
                | speed << port::SPEED_SHIFT;
            assert_eq!(read(&mut bench, port::STATUS)?, expected);
        }
        Ok(())
    });
}

#[test]
fn time_is_cycles_and_that_of_the_latest_frame_stays() {
    let dut = Dut::new(&Management::default()).unwrap();
    cases(6, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        bench.reset(&["reset"], 3)?;
        assert_eq!(time(&mut bench, port::RX_TIME)?, 0, "none yet");
        for _ in 0..10 {
            let (start, cycle) = (time(&mut bench, port::TIME)?, bench.cycles("clock")?);
            bench.run(rng.random_range(1..500))?;
            bench.set("rx_good", 1)?;
            bench.tick()?;
            bench.set("rx_good", 0)?;
            let frame = start + bench.cycles("clock")? - cycle;
            bench.run(rng.random_range(1..500))?;
            let (now, later) = (time(&mut bench, port::TIME)?, bench.cycles("clock")?);
            assert_eq!(now - start, later - cycle);
            let seen = time(&mut bench, port::RX_TIME)?;
            // The read of the start took some cycles.
            assert!((frame..frame + 12).contains(&seen), "{seen}, at {frame}");
        }
        Ok(())
    });
}
