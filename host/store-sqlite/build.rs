//! A new migration must be noticed: the macro that embeds them does not look at the folder's time.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
