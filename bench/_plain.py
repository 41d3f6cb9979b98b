"""The plain way to serve a model: PyTorch in a FastAPI handler, a film a request.

`python bench/_plain.py PACKAGE PORT` serves the package's network as most tutorials do.
"""

import io
import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms

from pulmo.model.classifier import load_classifier


def make_app(package: Path) -> FastAPI:
    """An application with the one route /predict."""
    classifier = load_classifier(package)
    info, network = classifier.info, classifier.network.eval()
    transform = transforms.Compose(
        [
            transforms.Grayscale(3),
            transforms.Resize((info.size, info.size)),
            transforms.ToTensor(),
            transforms.Normalize(info.mean, info.std),
        ]
    )
    app = FastAPI()

    @app.post("/predict")
    async def predict(film: UploadFile) -> dict[str, object]:
        image = Image.open(io.BytesIO(await film.read()))
        with torch.no_grad():
            output = network(transform(image)[None])
        shares = torch.softmax(output, 1)[0] if info.head == 2 else torch.sigmoid(output)[0]
        return {"label": info.classes[int(shares.argmax())], "probability": float(shares.max())}

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="warning")
