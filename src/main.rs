//! The command. Everything it does is in the library, [`chainring::cli`].

fn main() -> std::process::ExitCode {
    chainring::cli::main()
}
