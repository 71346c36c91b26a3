import json

import pandas as pd


class Tracker:
    def __init__(s,*,folder,**k): s.f=folder; s.f.mkdir(parents=True,exist_ok=True)
    def epoch(s,v): open(s.f/"metrics.jsonl","a").write(json.dumps(v)+"\n")
    def confusion(s,*a): pass
    def mistakes(s,*a): pass
    def finish(s,x): pass
def read_metrics(f): return pd.read_json(f/"metrics.jsonl",lines=True)
def console_line(job,v): return f"{job} epoch {v['epoch']:.0f}/4 loss {v['train/loss']:.3f} val {v['val/loss']:.3f} macro F1 {v['val/macro_f1']:.3f} {v.get('seconds',0):.1f}s"
