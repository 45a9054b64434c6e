//! Receive buffers, lent to the shard with the octets received.

use std::{
    cell::RefCell,
    fmt,
    ops::{Deref, DerefMut},
    rc::Rc,
};

/// Where buffers of one lender go when nobody uses them any more.
#[derive(Default)]
pub struct Returns(RefCell<Vec<(u16, Box<[u8]>)>>);

impl Returns {
    /// The buffers that came back since the last call, by their numbers.
    pub fn take(&self, mut each: impl FnMut(u16, Box<[u8]>)) {
        for (number, memory) in self.0.borrow_mut().drain(..) {
            each(number, memory);
        }
    }
}

/// Received octets, in a buffer on loan. While this lives the lender cannot reach the memory;
/// dropped, it goes back to be filled again.
pub struct ReceiveBuffer {
    memory: Box<[u8]>,
    len: usize,
    number: u16,
    home: Rc<Returns>,
}

impl ReceiveBuffer {
    /// Lends `memory`, whose first `len` octets were received; it comes back to `home` under its
    /// number.
    ///
    /// # Panics
    /// Where `memory` is shorter than `len`.
    #[must_use]
    pub fn new(memory: Box<[u8]>, len: usize, number: u16, home: Rc<Returns>) -> Self {
        assert!(len <= memory.len(), "as many octets as the buffer holds");
        Self { memory, len, number, home }
    }
}

impl Deref for ReceiveBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for ReceiveBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        self.home.0.borrow_mut().push((self.number, memory));
    }
}

impl fmt::Debug for ReceiveBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceiveBuffer({} octets, number {})", self.len, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_back_when_nobody_uses_it() {
        let home = Rc::new(Returns::default());
        let mut buffer = ReceiveBuffer::new(vec![7; 8].into(), 3, 5, home.clone());
        buffer[0] = 1;
        assert_eq!(*buffer, [1, 7, 7]);
        home.take(|_, _| unreachable!("it is lent"));
        drop(buffer);
        let mut came = Vec::new();
        home.take(|number, memory| came.push((number, memory.len())));
        assert_eq!(came, [(5, 8)]);
    }
}
