"""A merge file for each method: bfloat16, two donors (slerp, nearswap and arcee_fusion take one)."""

BASE = "base_model: <base>\n"
ALONE = "models:\n  - model: <one>\n"


def donors(more: str = "") -> str:
    return (f"models:\n  - {{model: <one>, parameters: {{weight: 1.0{more}}}}}\n"
            f"  - {{model: <two>, parameters: {{weight: 0.6{more}}}}}\n")  # fmt: skip


BODIES = {
    "task_arithmetic": BASE + donors(),
    "linear": donors(),
    "slerp": BASE + ALONE + "parameters: {t: 0.4}\n",
    "model_stock": BASE + donors(),
    "dare_linear": BASE + donors(", density: 0.5"),
    "dare_ties": BASE + donors(", density: 0.5"),
    "karcher": donors(),
    "multislerp": BASE + donors(),
    "della": BASE + donors(", density: 0.5, epsilon: 0.1"),
    "ties": BASE + donors(", density: 0.5"),
    "breadcrumbs": BASE + donors(", density: 0.9, gamma: 0.01"),
    "sce": BASE + donors() + "parameters: {select_topk: 0.5}\n",
    "breadcrumbs_ties": BASE + donors(", density: 0.9, gamma: 0.01"),
    "della_linear": BASE + donors(", density: 0.5, epsilon: 0.1"),
    "ram": BASE + donors(),
    "ramplus_tl": BASE + donors(),
    "nuslerp": donors(),
    "nearswap": BASE + ALONE + "parameters: {t: 0.001}\n",
    "arcee_fusion": BASE + ALONE,
}

# How many times faster than mergekit the export by a method should be.
TARGETS = {"task_arithmetic": 12, "linear": 12, "slerp": 12, "model_stock": 8, "dare_ties": 20, "dare_linear": 20,
           "karcher": 20, "multislerp": 20, "della": 35, "ties": 50, "breadcrumbs": 50, "sce": 50}  # fmt: skip


def text(method: str) -> str:
    return f"merge_method: {method}\ndtype: bfloat16\n{BODIES[method]}"
