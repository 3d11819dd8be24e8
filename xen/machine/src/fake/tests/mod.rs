//! Tests that need a machine: pages and their references, the heap, tables, and the fake machine's own promises.

mod heap;
mod iommus;
mod iommus_amd;
mod iommus_intel;
mod pages;
mod scripts;
mod tables;
mod vcpus;
