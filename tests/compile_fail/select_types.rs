//! The types of the arms of `select!`.

use plainsong::select;
use plainsong::sync::Event;
use plainsong::sync::channel::{Receiver, Sender};

fn an_arm_has_the_type_of_its_channel(sender: &Sender<i32>, receiver: &Receiver<i32>) {
    select! { send(sender, "text") -> _ => {} } //~ E0308
    select! { recv(sender) -> _ => {} } //~ E0308
}

fn the_arms_agree(receiver: &Receiver<i32>, event: &Event) -> i32 {
    select! {
        recv(receiver) -> item => item.unwrap(),
        wait(event) => "text", //~ E0308
    }
}

fn a_thread_of_std_is_no_coroutine(handle: std::thread::JoinHandle<i32>, number: i32) {
    select! { join(handle) -> _ => {} } //~ E0277: waits for a coroutine
    select! { join(number) -> _ => {} } //~ E0277: not a `JoinHandle` or `&mut JoinHandle`
}

fn a_descriptor_has_the_direction_of_its_arm(
    std: &std::net::TcpStream,
    listener: &plainsong::net::TcpListener,
    stream: &plainsong::net::TcpStream,
) {
    select! { readable(std) => {} } //~ E0277: waits for a socket or pipe of plainsong
    select! { writable(listener) => {} } //~ E0277: waits for a socket or pipe of plainsong
    select! { accept(stream) -> _ => {} } //~ E0277: waits for a listener of plainsong
}
