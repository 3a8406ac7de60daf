# A crate with a build script and a dependency by path; what a panic says.
export CARGO_HOME=$PWD/cargo-home RUSTC=$TOOLCHAIN/bin/rustc CARGO_TERM_QUIET=true
unset RUSTUP_HOME
mkdir -p part/src src
cat > Cargo.toml <<'X'
[package]
name = "whole"
version = "0.1.0"
edition = "2021"
build = "build.rs"
[dependencies]
part = { path = "part" }
[workspace]
X
printf '[package]\nname = "part"\nversion = "0.1.0"\nedition = "2021"\n' > part/Cargo.toml
echo 'pub fn said() -> &'"'"'static str { "of the part" }' > part/src/lib.rs
echo 'fn main() { println!("cargo::rustc-env=BUILT=by the script"); }' > build.rs
cat > src/main.rs <<'X'
fn main() {
    println!("{} {}", part::said(), env!("BUILT"));
    if std::env::args().count() > 1 {
        panic!("as asked");
    }
}
X
"$TOOLCHAIN/bin/cargo" build --offline
./target/debug/whole
RUST_BACKTRACE=1 ./target/debug/whole panic 2>&1 | grep -cE 'as asked|stack backtrace|whole::main'
# says:
# of the part by the script
# 3
