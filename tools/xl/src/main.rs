//! The `xl` program.

fn main() {
    let file = std::env::args().nth(1).expect("a file");
    let content = std::fs::read(&file).expect("readable");
    let (config, report) = xl::config::read(
        &file,
        &content,
        &std::env::args().skip(2).collect::<Vec<_>>(),
    );
    for finding in report.findings() {
        eprintln!("{finding}");
    }
    println!("{config:#?}");
}
