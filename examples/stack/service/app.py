"""Adds numbers, for whoever asks."""

from flask import Flask, jsonify, request

app = Flask(__name__)


@app.get("/add")
def add():
    numbers = [int(text) for text in request.args.getlist("n")]
    return jsonify(sum=sum(numbers), of=numbers)
