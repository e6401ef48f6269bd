# The server and its workers, without a GPU: the engines offline and upstream.
#   docker build -t fluxwerk .
#   docker run -p 8000:8000 -v fluxwerk:/data fluxwerk
FROM python:3.13-slim

# git is not in the image, so the release is told: docker build --build-arg VERSION=0.2.0
ARG VERSION=0.2.0.dev0
ARG EXTRAS=cli,server,fleet,storage,otel

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin fluxwerk \
    && install --directory --owner=fluxwerk --group=fluxwerk --mode=700 /data

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN SETUPTOOLS_SCM_PRETEND_VERSION="$VERSION" pip install "/src[$EXTRAS]" && rm -rf /src

# By number, so that Kubernetes can prove that it is not root.
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]

ENTRYPOINT ["fluxwerk"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--state", "/data"]
