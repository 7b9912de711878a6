"""Metadata, pins and extras; see README.md for why torch is capped."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
source = (here / "speechbrain_ssl" / "__init__.py").read_text(encoding="utf-8")

setup(
    name="speechbrain_ssl",
    version=re.search(r'__version__ = "(.+?)"', source).group(1),
    description=(
        "Self-supervised and contrastive speaker representation learning "
        "for SpeechBrain"
    ),
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["speechbrain_ssl", "speechbrain_ssl.*"]),
    python_requires=">=3.9,<3.14",
    install_requires=[
        "speechbrain>=1.1.2,<1.2",
        # torchaudio 2.11 is the newest and was built for CUDA 13.0; torch
        # 2.15 is built for 13.2 and the two cannot be imported together.
        "torch>=2.7.1,<2.15",
        "torchaudio>=2.7.1,<2.12",
        "huggingface_hub>=0.25",
        "hyperpyyaml>=1.2.3",
        "sentencepiece>=0.2.0",
        "pandas>=1.5",
        "scipy>=1.12",
    ],
    entry_points={
        "console_scripts": ["speechbrain-ssl=speechbrain_ssl.cli:main"]
    },
    extras_require={
        "onnx": ["onnx>=1.17", "onnxruntime>=1.19", "onnxscript>=0.3"],
        "plots": ["matplotlib>=3.7"],
        "probe": ["scikit-learn>=1.5"],
        "tensorboard": ["tensorboard>=2.14"],
        "pseudo": ["scikit-learn>=1.5"],
        "faiss": ["faiss-cpu>=1.8"],
        "dev": [
            "matplotlib>=3.7",
            "onnx>=1.17",
            "onnxruntime>=1.19",
            "onnxscript>=0.3",
            "pytest>=7.4",
            "ruff>=0.12,<1",
            "scikit-learn>=1.5",
            "tensorboard>=2.14",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
    ],
)
