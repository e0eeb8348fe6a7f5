//! The binary: passes the arguments to `cli` and exits with its exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tallygate::cli::run(std::env::args_os())
}
