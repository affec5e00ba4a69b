"""Train a quantum head for four classes: one measured qubit per class, and a linear layer behind them.

The test sentences share no topic word with the training sentences, so the body provides the meaning of words such as
"carrots" and "conductor".
"""

from __future__ import annotations

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from topics import sentences, unseen

from ketfit import HeadConfig, TextClassifier, TrainConfig

texts, topics = sentences()
classifier = TextClassifier("all-MiniLM-L6-v2", head=HeadConfig.recommended(384, 4), train=TrainConfig(epochs=40))
classifier.fit(texts, topics)

questions, answers = unseen()
for text, probabilities in zip(questions, classifier.predict_proba(questions), strict=True):
    best = probabilities.argmax()
    print(f"{classifier.classes_[best]:>8} {probabilities[best]:4.0%}  {text}")

print("\nrows: truth, columns: prediction,", *classifier.classes_)
print(confusion_matrix(answers, classifier.predict(questions)))

embed = classifier.body_.encode
linear = LogisticRegression().fit(embed(texts), topics)
print(f"\nquantum head        {classifier.score(questions, answers):.0%} of {len(answers)}")
print(f"logistic regression {linear.score(embed(questions), answers):.0%} of {len(answers)}")
