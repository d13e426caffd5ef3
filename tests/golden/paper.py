"""Makes the golden vectors of optimizers that neither PyTorch nor Keras has: each paper's own
algorithm, line by line, in 50 decimal digits. Fields and inputs are like those of make.py.
usage: python paper.py OUTDIR   (the standard library alone)
"""
import json, os, random, struct, sys
from decimal import Decimal as D, getcontext

getcontext().prec = 50
LEN, STEPS, KEEP = 37, 40, (1, 2, 10, 40)


def float32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def inputs(seed):
    """Parameters, and gradients that span magnitudes from 1e-6 to 1e2 and contain exact zeros."""
    rng = random.Random(seed)
    param = [float32(rng.gauss(0, 1)) for _ in range(LEN)]
    scale = [10 ** rng.uniform(-6, 2) for _ in range(LEN)]
    grads = [[float32(rng.gauss(0, 1) * s) if rng.random() >= 0.05 else 0.0 for s in scale] for _ in range(STEPS)]
    return param, grads


def run(out, name, seed, optimizer, step, state, start=None, **hyper):
    """step(t, p, g, s, h) is one element's new (p, s); start(h) is the first s, if it is not 0."""
    param, grads = inputs(seed)
    h = {k: v if isinstance(v, bool) else D(v) for k, v in hyper.items()}
    ps, ss, params = [D(p) for p in param], [start(h) if start else [D(0)] * len(state) for _ in param], {}
    for t, grad in enumerate(grads, 1):
        moved = [step(t, p, D(g), s, h) for p, g, s in zip(ps, grad, ss)]
        ps, ss = [p for p, _ in moved], [s for _, s in moved]
        if t in KEEP:
            params[str(t)] = [float(p) for p in ps]
    with open(os.path.join(out, f"paper_{name}.json"), "w") as f:
        json.dump(dict(source="the paper, in 50 digits", optimizer=optimizer, hyper=hyper, param=param, grads=grads,
                       params=params, state={k: [float(s[i]) for s in ss] for i, k in enumerate(state)}), f, separators=(",", ":"))


def adopt(t, p, g, s, h):
    """Taniguchi et al. 2024, Algorithm 2: v_0 is the first gradient's square; clip c_i = i^(1/4)."""
    m, v = s
    if t == 1:
        return p, [m, g * g]
    p -= h["lr"] * h["weight_decay"] * p
    c = D(t - 1).sqrt().sqrt()
    m = h["beta1"] * m + (1 - h["beta1"]) * min(max(g / max(v.sqrt(), h["eps"]), -c), c)
    return p - h["lr"] * m, [m, h["beta2"] * v + (1 - h["beta2"]) * g * g]


def ademamix(t, p, g, s, h):
    """Pagliardini et al. 2024, Algorithm 1, with the schedulers of alpha and beta3 (its section 3)."""
    m1, m2, v = s
    b1, b2, b3, T, U = h["beta1"], h["beta2"], h["beta3"], h["alpha_warmup"], h["beta3_warmup"]
    alpha = min(t * h["alpha"] / T, h["alpha"])
    b3 = min((b1.ln() * b3.ln() / ((1 - t / U) * b3.ln() + t / U * b1.ln())).exp(), b3)
    m1, m2, v = b1 * m1 + (1 - b1) * g, b3 * m2 + (1 - b3) * g, b2 * v + (1 - b2) * g * g
    mh, vh = m1 / (1 - b1 ** t), v / (1 - b2 ** t)
    return p - h["lr"] * ((mh + alpha * m2) / (vh.sqrt() + h["eps"]) + h["weight_decay"] * p), [m1, m2, v]


def adabelief(t, p, g, s, h):
    """Zhuang et al. 2020, Algorithm 2, with decoupled weight decay."""
    m, v = s
    p -= h["lr"] * h["weight_decay"] * p
    m = h["beta1"] * m + (1 - h["beta1"]) * g
    v = h["beta2"] * v + (1 - h["beta2"]) * (g - m) ** 2 + h["eps"]
    return p - h["lr"] * m / (1 - h["beta1"] ** t) / ((v / (1 - h["beta2"] ** t)).sqrt() + h["eps"]), [m, v]


def yogi(t, p, g, s, h):
    """Zaheer et al. 2018, Algorithm 2, with Adam's bias corrections."""
    m, v = s
    m = h["beta1"] * m + (1 - h["beta1"]) * g
    v -= (1 - h["beta2"]) * ((v > g * g) - (v < g * g)) * g * g
    return p - h["lr"] * m / (1 - h["beta1"] ** t) / ((v / (1 - h["beta2"] ** t)).sqrt() + h["eps"]), [m, v]


def adan(t, p, g, s, h):
    """Xie et al. 2022, Algorithm 1, with 1 - beta for the paper's beta and the bias corrections of its code."""
    m, v, n, neg = s
    b1, b2, b3 = h["beta1"], h["beta2"], h["beta3"]
    d = g + neg if t > 1 else D(0)
    m, v, n = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * d, b3 * n + (1 - b3) * (g + b2 * d) ** 2
    u = (m / (1 - b1 ** t) + b2 * v / (1 - b2 ** t)) / ((n / (1 - b3 ** t)).sqrt() + h["eps"])
    return (p - h["lr"] * u) / (1 + h["lr"] * h["weight_decay"]), [m, v, n, -g]


def cautious(t, p, g, s, h):
    """Liang et al. 2024, Algorithm 2 without its factor alpha: the mask 1(u g >= 0) on AdamW's step u."""
    m, v = s
    p -= h["lr"] * h["weight_decay"] * p
    m, v = h["beta1"] * m + (1 - h["beta1"]) * g, h["beta2"] * v + (1 - h["beta2"]) * g * g
    u = m / (1 - h["beta1"] ** t) / ((v / (1 - h["beta2"] ** t)).sqrt() + h["eps"])
    return p - h["lr"] * (u if u * g >= 0 else 0), [m, v]


if __name__ == "__main__":
    out, usual = sys.argv[1], dict(lr=1e-3, beta1=0.9, weight_decay=0.01)
    run(out, "adopt", 1, "ADOPT", adopt, ["exp_avg", "exp_avg_sq"], beta2=0.9999, eps=1e-6, **usual)
    run(out, "ademamix", 2, "AdEMAMix", ademamix, ["exp_avg_fast", "exp_avg_slow", "exp_avg_sq"],
        beta2=0.999, beta3=0.9999, alpha=5.0, alpha_warmup=20, beta3_warmup=30, eps=1e-8, **usual)
    run(out, "adamw_cautious", 3, "C-AdamW", cautious, ["exp_avg", "exp_avg_sq"], beta2=0.999, eps=1e-8, **usual)
    run(out, "adabelief", 4, "AdaBelief", adabelief, ["exp_avg", "exp_avg_var"], beta2=0.999, eps=1e-16, **usual)
    run(out, "yogi", 5, "Yogi", yogi, ["exp_avg", "exp_avg_sq"], start=lambda h: [D(0), h["initial_accumulator_value"]],
        lr=1e-2, beta1=0.9, beta2=0.999, eps=1e-3, initial_accumulator_value=1e-6)
    run(out, "adan", 6, "Adan", adan, ["exp_avg", "exp_avg_diff", "exp_avg_sq", "neg_pre_grad"],
        lr=1e-3, beta1=0.98, beta2=0.92, beta3=0.99, eps=1e-8, weight_decay=0.02)
