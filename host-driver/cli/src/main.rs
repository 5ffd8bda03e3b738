//! `hematite`: the card's driver and IP stack as a command, over the kernel's VFIO or vfio-user.
//!
//! Driver and stack run in this process, for as long as the command does. Whatever ends it (the work is done, an error,
//! a panic, SIGTERM), the function is left with bus mastering and interrupts off and no memory mapped.

mod arguments;
mod cpus;
mod ethtool;
mod os;
mod pci;
mod ping;
mod session;
mod transfer;

use anyhow::Result;
use arguments::{Arguments, Command, Device};
use clap::Parser;
use hematite_bus::vfio::{KernelVfio, Port, VfioFunction, VfioUser};
use session::Session;
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hematite: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether what was asked for succeeded.
fn run(arguments: &Arguments) -> Result<bool> {
    // DMA memory: rings of 256 descriptors and their buffers take a tenth of it, for each CPU. In whole huge pages.
    let dma = usize::from(arguments.cpus) * (8 << 20);
    match &arguments.command {
        Command::Bind { bdf } => pci::bind(bdf),
        Command::Unbind { bdf } => pci::unbind(bdf),
        command => match arguments.device()? {
            Device::VfioUser(path) => on_card(VfioUser::connect(path, dma)?, arguments, command),
            Device::Function(bdf) => on_card(KernelVfio::open(bdf, dma)?, arguments, command),
            Device::System => os::run(command),
        },
    }
}

fn on_card<P: Port + Send + 'static>(
    function: VfioFunction<P>,
    arguments: &Arguments,
    command: &Command,
) -> Result<bool> {
    if let Command::Ethtool { words } = command {
        return ethtool::run(function, arguments.bus(), words);
    }
    let (mtu, cpus) = (arguments.mtu, arguments.cpus.into());
    let mut session = Session::start(function, arguments.address()?, mtu, cpus)?;
    let done = match command {
        Command::Up { seconds, port, .. } => session.serve(*seconds, *port),
        Command::Ping(options) => ping::run(&mut session, options),
        Command::Udp(options) => transfer::udp(&mut session, options),
        Command::Tcp(options) => transfer::tcp(&mut session, options),
        Command::Ethtool { .. } | Command::Bind { .. } | Command::Unbind { .. } => Ok(true),
    };
    let ended = session.end();
    Ok(done? && ended?)
}
