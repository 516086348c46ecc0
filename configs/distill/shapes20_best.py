# The student keeps the teacher's batch statistics; old classes learn from the teacher's class and box
# maps alone, new ones from the annotations alone.
_base_ = './shapes20_finetune.py'

num_old, num_new = len(_base_.old_classes), len(_base_.new_classes)
# old objects are not annotated: the detection loss says nothing about their classes
class_weight = [0.0] * num_old + [1.0] * num_new
model = dict(
    # with the statistics of each batch the student would differ from the teacher by noise alone
    norm_eval=True,
    student=dict(bbox_head=dict(loss_cls=dict(class_weight=class_weight))),
    distillers=[
        dict(
            source='bbox_head.cls',
            loss=dict(type='LogitsKLDivergence', tau=1.0, mode='bernoulli'),
            weight=1000.0,
        ),
        dict(source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss'), weight=20.0),
    ],
)
