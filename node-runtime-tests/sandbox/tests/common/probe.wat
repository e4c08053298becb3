;; A contract that a test can order about. The first byte of the input is the order:
;;   0  return the stored byte (0 if there is none)
;;   1  flip the stored byte, emit an event with the new one, and return it
;;   2  return the block's timestamp (u64, milliseconds)
;;   3  flip the stored byte, then revert with 0xff
;;   4  trap
(module
  (import "seal0" "input" (func $input (param i32 i32)))
  (import "seal0" "seal_return" (func $return (param i32 i32 i32)))
  (import "seal0" "now" (func $now (param i32 i32)))
  (import "seal0" "deposit_event" (func $deposit_event (param i32 i32 i32 i32)))
  (import "seal1" "get_storage" (func $get_storage (param i32 i32 i32 i32) (result i32)))
  (import "seal2" "set_storage" (func $set_storage (param i32 i32 i32 i32) (result i32)))
  (import "env" "memory" (memory 1 1))

  ;; 0: storage key, 4: value, 8: length of what is read, 16: output, 64: input
  (data (i32.const 0) "flag")

  (func $load
    (i32.store (i32.const 8) (i32.const 1))
    (if (call $get_storage (i32.const 0) (i32.const 4) (i32.const 4) (i32.const 8))
      (then (i32.store8 (i32.const 4) (i32.const 0)))))

  (func $flip
    (call $load)
    (i32.store8 (i32.const 4) (i32.xor (i32.load8_u (i32.const 4)) (i32.const 1)))
    (drop (call $set_storage (i32.const 0) (i32.const 4) (i32.const 4) (i32.const 1))))

  (func (export "deploy"))

  (func (export "call")
    (local $order i32)
    (i32.store (i32.const 8) (i32.const 64))
    (call $input (i32.const 64) (i32.const 8))
    (local.set $order (i32.load8_u (i32.const 64)))
    (if (i32.eq (local.get $order) (i32.const 0))
      (then (call $load) (call $return (i32.const 0) (i32.const 4) (i32.const 1))))
    (if (i32.eq (local.get $order) (i32.const 1))
      (then
        (call $flip)
        (call $deposit_event (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1))
        (call $return (i32.const 0) (i32.const 4) (i32.const 1))))
    (if (i32.eq (local.get $order) (i32.const 2))
      (then
        (i32.store (i32.const 8) (i32.const 8))
        (call $now (i32.const 16) (i32.const 8))
        (call $return (i32.const 0) (i32.const 16) (i32.const 8))))
    (if (i32.eq (local.get $order) (i32.const 3))
      (then
        (call $flip)
        (i32.store8 (i32.const 16) (i32.const 0xff))
        (call $return (i32.const 1) (i32.const 16) (i32.const 1))))
    (unreachable)))
