"""Makes constants.json: the constants of steps by the formulas of the papers, in 80 decimal digits, and
row-wise Adam's second moment by the mean of squares. Every input is the f64 (or f32) that Rust reads.
usage: python make.py > constants.json   (the standard library alone)
"""
import json, random, struct, sys
from decimal import Decimal as D, getcontext

getcontext().prec = 80
STEPS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 50, 999, 10_000)


def power(base, exponent):
    return D(1) if exponent == 0 else base ** exponent


def corrections(betas, t):
    return [1 - power(beta, t) for beta in betas]


def adam(beta1, beta2, t, lr, eps):
    c1, c2 = corrections([beta1, beta2], t)
    return [lr * c2.sqrt() / c1, eps * c2.sqrt()]


def nadam(beta1, beta2, momentum_decay, t, lr, eps):
    (c2,) = corrections([beta2], t)
    u = lambda i: beta1 * (1 - D("0.96") ** (i * momentum_decay) / 2)
    product = D(1)
    for i in range(1, t + 1):
        product *= u(i)
    now, nxt = u(t), u(t + 1)
    size = lr * c2.sqrt()
    return [size * (1 - now) / (1 - product), size * nxt / (1 - product * nxt), eps * c2.sqrt()]


def radam(beta1, beta2, t, lr):
    c1, c2 = corrections([beta1, beta2], t)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / c2
    if length <= 5:
        return [D(0), lr / c1]
    factor = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return [D(1), lr / c1 * factor.sqrt() * c2.sqrt()]


def ademamix(beta1, beta2, beta3, alpha, warmup, t, lr, eps):
    c1, c2 = corrections([beta1, beta2], t)
    x = D(t) / warmup
    a, b3 = alpha, beta3
    if t < warmup:
        a = x * alpha
        log1, log3 = beta1.ln(), beta3.ln()
        b3 = (log1 * log3 / ((1 - x) * log3 + x * log1)).exp()
    size = lr * c2.sqrt()
    return [1 - b3, size / c1, size * a, eps * c2.sqrt()]


def row_wise(beta2, grads):
    """The second moments of a row after each of some steps."""
    v, found = D(0), []
    for grad in grads:
        mean = sum(D(g) ** 2 for g in grad) / len(grad)
        v = beta2 * v + (1 - beta2) * mean
        found.append(float(v))
    return found


def rows():
    near_1 = [1 - 2.0**-53, 1 - 1e-12, 1 - 1e-9]
    lr, eps = 1e-3, 1e-8
    for t in STEPS:
        for beta1, beta2 in [(0.9, 0.999), (0.0, 0.5), (0.95, 0.98), *((0.9, beta) for beta in near_1)]:
            d = [D(x) for x in (beta1, beta2)]
            yield "adam", [beta1, beta2], t, adam(*d, t, D(lr), D(eps))
            yield "radam", [beta1, beta2], t, radam(*d, t, D(lr))
            for decay in [4e-3, 0.0, 1.0, 1e-9]:
                if t <= 999:
                    yield "nadam", [beta1, beta2, decay], t, nadam(*d, D(decay), t, D(lr), D(eps))
        for beta1, beta3, warmup in [(0.9, 0.9999, 1000), (0.9, 0.9, 10), (0.5, 0.999999, 100_000)]:
            values = ademamix(D(beta1), D(0.999), D(beta3), D(2), warmup, t, D(lr), D(eps))
            yield "ademamix", [beta1, 0.999, beta3, warmup], t, values


def main():
    rng = random.Random(1)
    single = lambda x: struct.unpack("f", struct.pack("f", x))[0]
    grads = [[single(rng.gauss(0, 1) * 10 ** rng.uniform(-3, 1)) for _ in range(37)] for _ in range(5)]
    cases = [
        {"optimizer": name, "settings": settings, "t": t, "constants": [float(c) for c in constants]}
        for name, settings, t, constants in rows()
    ]
    row = {"beta2": 0.999, "grads": grads, "exp_avg_sq": row_wise(D(0.999), grads)}
    lines = ",\n".join(json.dumps(case) for case in cases)
    sys.stdout.write(f'{{"cases": [\n{lines}\n],\n"row_wise": {json.dumps(row)}}}\n')


main()
