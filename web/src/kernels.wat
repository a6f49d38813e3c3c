;; What takes the time of a map, four float32 at once. Pointers and strides are in bytes unless said otherwise.
(module
  (import "page" "memory" (memory 1))

  ;; 2^x for x ≤ 127; below −126 it is that of −126. With x = n + f, |f| ≤ ½: Taylor's series of 2^f to f⁶, and n in the exponent.
  (func $exp2 (param $x v128) (result v128)
    (local $n v128) (local $f v128) (local $p v128)
    (local.set $x (f32x4.max (local.get $x) (f32x4.splat (f32.const -126))))
    (local.set $n (f32x4.nearest (local.get $x)))
    (local.set $f (f32x4.sub (local.get $x) (local.get $n)))
    (local.set $p (f32x4.splat (f32.const 0.00015403530393381608)))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $f)) (f32x4.splat (f32.const 0.0013333558146428443))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $f)) (f32x4.splat (f32.const 0.009618129107628477))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $f)) (f32x4.splat (f32.const 0.05550410866482158))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $f)) (f32x4.splat (f32.const 0.2402265069591007))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $f)) (f32x4.splat (f32.const 0.6931471805599453))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $f)) (f32x4.splat (f32.const 1))))
    (f32x4.mul
      (local.get $p)
      (i32x4.shl
        (i32x4.add (i32x4.trunc_sat_f32x4_s (local.get $n)) (i32x4.splat (i32.const 127)))
        (i32.const 23))))

  (func $exp (param $x v128) (result v128)
    (call $exp2 (f32x4.mul (local.get $x) (f32x4.splat (f32.const 1.4426950408889634)))))

  ;; 1 / (1 + e^−x); beyond ±87 it is that of ±87, so that nothing overflows.
  (func $sigmoid_of (param $x v128) (result v128)
    (f32x4.div
      (f32x4.splat (f32.const 1))
      (f32x4.add
        (f32x4.splat (f32.const 1))
        (call $exp (f32x4.min (f32x4.neg (local.get $x)) (f32x4.splat (f32.const 87)))))))

  ;; log(1 + e^x) = max(x, 0) + log(1 + e) with e = e^−|x|; the logarithm is 2 artanh(e / (2 + e)), its series to s¹³.
  (func $softplus_of (param $x v128) (result v128)
    (local $e v128) (local $s v128) (local $q v128) (local $p v128)
    (local.set $e (call $exp (f32x4.neg (f32x4.abs (local.get $x)))))
    (local.set $s (f32x4.div (local.get $e) (f32x4.add (local.get $e) (f32x4.splat (f32.const 2)))))
    (local.set $q (f32x4.mul (local.get $s) (local.get $s)))
    (local.set $p (f32x4.splat (f32.const 0.07692307692307693)))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $q)) (f32x4.splat (f32.const 0.09090909090909091))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $q)) (f32x4.splat (f32.const 0.1111111111111111))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $q)) (f32x4.splat (f32.const 0.14285714285714285))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $q)) (f32x4.splat (f32.const 0.2))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $q)) (f32x4.splat (f32.const 0.3333333333333333))))
    (local.set $p (f32x4.add (f32x4.mul (local.get $p) (local.get $q)) (f32x4.splat (f32.const 1))))
    (f32x4.add
      (f32x4.max (local.get $x) (f32x4.splat (f32.const 0)))
      (f32x4.mul (f32x4.mul (local.get $p) (local.get $s)) (f32x4.splat (f32.const 2)))))

  ;; The functions below change the values from one pointer to another in place; between them lies a multiple of 16 bytes.
  (func $exponential (export "exponential") (param $at i32) (param $end i32)
    (loop $next
      (v128.store (local.get $at) (call $exp (v128.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))

  (func $sigmoid (export "sigmoid") (param $at i32) (param $end i32)
    (loop $next
      (v128.store (local.get $at) (call $sigmoid_of (v128.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))

  (func $silu (export "silu") (param $at i32) (param $end i32)
    (local $x v128)
    (loop $next
      (local.set $x (v128.load (local.get $at)))
      (v128.store (local.get $at) (f32x4.mul (local.get $x) (call $sigmoid_of (local.get $x))))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))

  (func $softplus (export "softplus") (param $at i32) (param $end i32)
    (loop $next
      (v128.store (local.get $at) (call $softplus_of (v128.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))

  ;; target += values, value by value, up to a pointer.
  (func $add (export "add") (param $target i32) (param $values i32) (param $end i32)
    (loop $next
      (v128.store (local.get $target) (f32x4.add (v128.load (local.get $target)) (v128.load (local.get $values))))
      (local.set $target (i32.add (local.get $target) (i32.const 16)))
      (local.set $values (i32.add (local.get $values) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $target) (local.get $end)))))

  ;; target · values, value by value, up to a pointer.
  (func $multiply (export "multiply") (param $target i32) (param $values i32) (param $end i32)
    (loop $next
      (v128.store (local.get $target) (f32x4.mul (v128.load (local.get $target)) (v128.load (local.get $values))))
      (local.set $target (i32.add (local.get $target) (i32.const 16)))
      (local.set $values (i32.add (local.get $values) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $target) (local.get $end)))))

  ;; A tap of a depthwise convolution over neighbouring pixels of $stride bytes: target += values · weights, the weights of one pixel
  ;; for each of them, up to a pointer.
  (func $tap (export "tap") (param $target i32) (param $end i32) (param $values i32) (param $weights i32) (param $stride i32)
    (local $weight i32) (local $weights_end i32)
    (local.set $weights_end (i32.add (local.get $weights) (local.get $stride)))
    (loop $next_pixel
      (local.set $weight (local.get $weights))
      (loop $next
        (v128.store
          (local.get $target)
          (f32x4.add
            (v128.load (local.get $target))
            (f32x4.mul (v128.load (local.get $values)) (v128.load (local.get $weight)))))
        (local.set $target (i32.add (local.get $target) (i32.const 16)))
        (local.set $values (i32.add (local.get $values) (i32.const 16)))
        (local.set $weight (i32.add (local.get $weight) (i32.const 16)))
        (br_if $next (i32.lt_u (local.get $weight) (local.get $weights_end))))
      (br_if $next_pixel (i32.lt_u (local.get $target) (local.get $end)))))

  ;; The largest of the values up to a pointer.
  (func $largest (export "largest") (param $at i32) (param $end i32) (result f32)
    (local $top v128)
    (local.set $top (v128.load (local.get $at)))
    (loop $next
      (local.set $top (f32x4.max (local.get $top) (v128.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (f32.max
      (f32.max (f32x4.extract_lane 0 (local.get $top)) (f32x4.extract_lane 1 (local.get $top)))
      (f32.max (f32x4.extract_lane 2 (local.get $top)) (f32x4.extract_lane 3 (local.get $top)))))

  ;; Values up to a pointer become the weights e^(γ (x − top)), of exponents of −80 at least; returns their sum.
  (func $weigh (export "weigh") (param $at i32) (param $end i32) (param $top f32) (param $gamma f32) (result f32)
    (local $sum v128) (local $x v128)
    (local.set $sum (f32x4.splat (f32.const 0)))
    (loop $next
      (local.set $x
        (call $exp
          (f32x4.max
            (f32x4.splat (f32.const -80))
            (f32x4.mul
              (f32x4.splat (local.get $gamma))
              (f32x4.sub (v128.load (local.get $at)) (f32x4.splat (local.get $top)))))))
      (v128.store (local.get $at) (local.get $x))
      (local.set $sum (f32x4.add (local.get $sum) (local.get $x)))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (f32.add
      (f32.add (f32x4.extract_lane 0 (local.get $sum)) (f32x4.extract_lane 1 (local.get $sum)))
      (f32.add (f32x4.extract_lane 2 (local.get $sum)) (f32x4.extract_lane 3 (local.get $sum)))))

  ;; c (m × n) = a (m × k) · b (k × n) + bias (n), m a multiple of 4 and n of 8. b lies in panels of 8 columns, row by row; each 4 × 8
  ;; of c are summed in registers.
  (func $product (export "product")
    (param $a i32) (param $a_stride i32) (param $b i32) (param $bias i32) (param $c i32) (param $c_stride i32)
    (param $m i32) (param $k i32) (param $n i32)
    (local $c_end i32) (local $a_row i32) (local $c_at i32) (local $rows_end i32) (local $end i32) (local $panel i32)
    (local $a0 i32) (local $a1 i32) (local $a2 i32) (local $a3 i32) (local $b_at i32) (local $c_row i32)
    (local $b0 v128) (local $b1 v128) (local $x v128)
    (local $c00 v128) (local $c01 v128) (local $c10 v128) (local $c11 v128)
    (local $c20 v128) (local $c21 v128) (local $c30 v128) (local $c31 v128)
    (local.set $c_end (i32.add (local.get $c) (i32.shl (local.get $n) (i32.const 2))))
    (local.set $rows_end (i32.add (local.get $a) (i32.mul (local.get $m) (local.get $a_stride))))
    (local.set $panel (i32.shl (local.get $k) (i32.const 5)))
    (loop $next_panel
      (local.set $a_row (local.get $a))
      (local.set $c_row (local.get $c))
      (loop $next_rows
        (local.set $a0 (local.get $a_row))
        (local.set $a1 (i32.add (local.get $a0) (local.get $a_stride)))
        (local.set $a2 (i32.add (local.get $a1) (local.get $a_stride)))
        (local.set $a3 (i32.add (local.get $a2) (local.get $a_stride)))
        (local.set $end (i32.add (local.get $a0) (i32.shl (local.get $k) (i32.const 2))))
        (local.set $b_at (local.get $b))
        (local.set $c00 (v128.load (local.get $bias)))
        (local.set $c01 (v128.load offset=16 (local.get $bias)))
        (local.set $c10 (local.get $c00))
        (local.set $c11 (local.get $c01))
        (local.set $c20 (local.get $c00))
        (local.set $c21 (local.get $c01))
        (local.set $c30 (local.get $c00))
        (local.set $c31 (local.get $c01))
        (loop $next
          (local.set $b0 (v128.load (local.get $b_at)))
          (local.set $b1 (v128.load offset=16 (local.get $b_at)))
          (local.set $x (v128.load32_splat (local.get $a0)))
          (local.set $c00 (f32x4.add (local.get $c00) (f32x4.mul (local.get $x) (local.get $b0))))
          (local.set $c01 (f32x4.add (local.get $c01) (f32x4.mul (local.get $x) (local.get $b1))))
          (local.set $x (v128.load32_splat (local.get $a1)))
          (local.set $c10 (f32x4.add (local.get $c10) (f32x4.mul (local.get $x) (local.get $b0))))
          (local.set $c11 (f32x4.add (local.get $c11) (f32x4.mul (local.get $x) (local.get $b1))))
          (local.set $x (v128.load32_splat (local.get $a2)))
          (local.set $c20 (f32x4.add (local.get $c20) (f32x4.mul (local.get $x) (local.get $b0))))
          (local.set $c21 (f32x4.add (local.get $c21) (f32x4.mul (local.get $x) (local.get $b1))))
          (local.set $x (v128.load32_splat (local.get $a3)))
          (local.set $c30 (f32x4.add (local.get $c30) (f32x4.mul (local.get $x) (local.get $b0))))
          (local.set $c31 (f32x4.add (local.get $c31) (f32x4.mul (local.get $x) (local.get $b1))))
          (local.set $b_at (i32.add (local.get $b_at) (i32.const 32)))
          (local.set $a1 (i32.add (local.get $a1) (i32.const 4)))
          (local.set $a2 (i32.add (local.get $a2) (i32.const 4)))
          (local.set $a3 (i32.add (local.get $a3) (i32.const 4)))
          (local.set $a0 (i32.add (local.get $a0) (i32.const 4)))
          (br_if $next (i32.lt_u (local.get $a0) (local.get $end))))
        (local.set $c_at (local.get $c_row))
        (v128.store (local.get $c_at) (local.get $c00))
        (v128.store offset=16 (local.get $c_at) (local.get $c01))
        (local.set $c_at (i32.add (local.get $c_at) (local.get $c_stride)))
        (v128.store (local.get $c_at) (local.get $c10))
        (v128.store offset=16 (local.get $c_at) (local.get $c11))
        (local.set $c_at (i32.add (local.get $c_at) (local.get $c_stride)))
        (v128.store (local.get $c_at) (local.get $c20))
        (v128.store offset=16 (local.get $c_at) (local.get $c21))
        (local.set $c_at (i32.add (local.get $c_at) (local.get $c_stride)))
        (v128.store (local.get $c_at) (local.get $c30))
        (v128.store offset=16 (local.get $c_at) (local.get $c31))
        (local.set $c_row (i32.add (local.get $c_at) (local.get $c_stride)))
        (local.set $a_row (i32.add (local.get $a_row) (i32.shl (local.get $a_stride) (i32.const 2))))
        (br_if $next_rows (i32.lt_u (local.get $a_row) (local.get $rows_end))))
      (local.set $b (i32.add (local.get $b) (local.get $panel)))
      (local.set $bias (i32.add (local.get $bias) (i32.const 32)))
      (local.set $c (i32.add (local.get $c) (i32.const 32)))
      (br_if $next_panel (i32.lt_u (local.get $c) (local.get $c_end)))))

  ;; One token of the selective scan: state (E × N) becomes 2^(Δ A) state + Δ u B, and u becomes its C-weighted sum + D u. A is in
  ;; units of log₂, and N, its bytes, a multiple of 16; u and delta are E values, of which u ends at $u_end.
  (func $scan (export "scan")
    (param $u i32) (param $u_end i32) (param $delta i32) (param $A i32) (param $B i32) (param $C i32) (param $D i32)
    (param $state i32) (param $state_bytes i32)
    (local $b i32) (local $c i32) (local $end i32) (local $d v128) (local $du v128) (local $sum v128) (local $h v128)
    (loop $next_channel
      (local.set $b (local.get $B))
      (local.set $c (local.get $C))
      (local.set $end (i32.add (local.get $B) (local.get $state_bytes)))
      (local.set $d (v128.load32_splat (local.get $delta)))
      (local.set $du (f32x4.mul (local.get $d) (v128.load32_splat (local.get $u))))
      (local.set $sum (f32x4.splat (f32.const 0)))
      (loop $next
        (local.set $h
          (f32x4.add
            (f32x4.mul (call $exp2 (f32x4.mul (local.get $d) (v128.load (local.get $A)))) (v128.load (local.get $state)))
            (f32x4.mul (local.get $du) (v128.load (local.get $b)))))
        (v128.store (local.get $state) (local.get $h))
        (local.set $sum (f32x4.add (local.get $sum) (f32x4.mul (local.get $h) (v128.load (local.get $c)))))
        (local.set $A (i32.add (local.get $A) (i32.const 16)))
        (local.set $state (i32.add (local.get $state) (i32.const 16)))
        (local.set $c (i32.add (local.get $c) (i32.const 16)))
        (local.set $b (i32.add (local.get $b) (i32.const 16)))
        (br_if $next (i32.lt_u (local.get $b) (local.get $end))))
      (f32.store
        (local.get $u)
        (f32.add
          (f32.add
            (f32.add (f32x4.extract_lane 0 (local.get $sum)) (f32x4.extract_lane 1 (local.get $sum)))
            (f32.add (f32x4.extract_lane 2 (local.get $sum)) (f32x4.extract_lane 3 (local.get $sum))))
          (f32.mul (f32.load (local.get $D)) (f32.load (local.get $u)))))
      (local.set $D (i32.add (local.get $D) (i32.const 4)))
      (local.set $delta (i32.add (local.get $delta) (i32.const 4)))
      (local.set $u (i32.add (local.get $u) (i32.const 4)))
      (br_if $next_channel (i32.lt_u (local.get $u) (local.get $u_end))))))
