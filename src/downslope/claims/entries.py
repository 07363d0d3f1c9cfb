"""The claims. To add one, add an entry to `CLAIMS`.

What was expected, and between which numbers that lies, was written before the first run, from what the literature says
and what arithmetic does; it stays as it was, also where something else was found.
"""

from downslope.claims import measures as m
from downslope.claims.claim import Claim, Part, at_least, at_most
from downslope.claims.experiments import Raced, Walked

# Experiments that several parts or claims look at

TEXTBOOK = "sgd, momentum, nesterov, adagrad, rmsprop, adam"
DIGITS = Raced("digits", TEXTBOOK)
BATCHES = Raced(
    "digits",
    "sgd",
    {"learning_rates": (0.01, 0.0215, 0.0464, 0.1, 0.215, 0.464, 1.0), "tuning_seeds": 2, "confirming_seeds": 3},
    batches={"1 row": (1, 10), "8 rows": (8, 30), "64 rows": (64, 30), "512 rows": (512, 100), "all rows": (1077, 300)},
)
DEFAULTS = Raced(
    "digits",
    "adam, torch.rmsprop, keras.rmsprop",
    {"learning_rates": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), "tuning_seeds": 10, "confirming_seeds": 0},
)
CORRECTION = Raced("digits", {"adam": {}, "adam, uncorrected": {"bias_correction": False}})
HEAVY = Raced("heavy-tail", "nesterov, adam")
EVEN = Raced("heavy-tail", "nesterov, adam", power=0)
SEPARABLE = Raced(
    "separable",
    "nesterov, adam",
    {"learning_rates": (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3), "tuning_seeds": 2, "confirming_seeds": 2},
)
QUADRATIC = Raced("deep-quadratic", "sgd, momentum, nesterov")

TUNED = Walked("valley", "sgd, momentum, nesterov")
SHARED = Walked("valley", "sgd, momentum", {"lr": 0.15})
MU = {f"momentum, mu {mu:g}": {"mu": mu} for mu in (0.4, 0.5, 0.57, 0.65, 0.8)} | {
    f"nesterov, mu {mu:g}": {"mu": mu} for mu in (0.4, 0.5, 0.57, 0.65, 0.8)
}
TUNED_MU = Walked("valley", {"sgd": {}, **MU}, shows="loss")
NOISY = Walked("bowl", "sgd, momentum", {"lr": 0.1, "noise": 1.0, "steps": 5000}, shows="loss")
LEVEL = Walked(
    "where(x > 3, x - 1, where(x > 1, 2, x**2 + 1))", "sgd, momentum, rmsprop, adam", {"start": (4.5,)}, shows="way"
)
SLIGHT = Walked("1 - exp(-x**2/8)", "sgd, momentum, rmsprop", {"start": (6.0,)})
HOLLOW = Walked("double_well", "sgd, momentum, adam", {"lr": 0.05})
SLIGHT_SHARED = Walked("1 - exp(-x**2/8)", "sgd, momentum", {"start": (6.0,), "lr": 1.0})
SADDLE = Walked("saddle", "sgd, momentum, rmsprop")
SADDLE_SHARED = Walked("saddle", "sgd, momentum, rmsprop", {"lr": 0.02})
STEEP_SADDLE = Walked("10*x**2 - y**2/2 + y**4/4", "sgd, momentum, rmsprop", {"start": (1.0, 0.01)})
CYCLE = Walked(
    "heavy_ball_cycle",
    {"momentum": {"lr": 1 / 9, "mu": 4 / 9}, "nesterov": {"lr": 1 / 25, "mu": 2 / 3}},
    {"lr": "own", "steps": 60},
)
SHOES = Walked("valley", "adagrad, rmsprop", {"lr": 0.1, "steps": 200})
SHOES_TUNED = Walked("valley", "adagrad, rmsprop", {"steps": 200}, shows="step")
SHOES_NOISY = Walked(
    "bowl", "adagrad, rmsprop", {"start": (0.0,), "lr": 0.1, "noise": 1.0, "steps": 5000}, shows="step"
)
BURST = Walked(
    "(x**2 + 4*y**2)/20 + exp(4*(x + y - 6))",
    "adagrad, rmsprop",
    {"start": (5.0, 3.0), "goal": 0.01, "steps": 3000},
    shows="loss",
)
KINK = Walked("kink", "adagrad, rmsprop", {"lr": 0.3, "steps": 200})
FIRST = Walked(
    "bowl", {"adam": {}, "adam, uncorrected": {"bias_correction": False}}, {"lr": 0.1, "steps": 60}, shows="way"
)
LONG_MEMORY = Walked(
    "bowl",
    {"adam": {"beta2": 0.9999}, "adam, uncorrected": {"beta2": 0.9999, "bias_correction": False}},
    {"lr": 0.1, "steps": 60},
)
EQUAL_MEMORIES = Walked(
    "bowl",
    {
        "adam": {"beta1": 0.95, "beta2": 0.95},
        "adam, uncorrected": {"beta1": 0.95, "beta2": 0.95, "bias_correction": False},
    },
    {"lr": 0.1, "steps": 60},
)
NEAR_LIMIT = Walked("valley", "sgd, momentum", {"lr": 0.19})
SHORT_STEPS = Walked("valley", "sgd, momentum", {"lr": 0.05})
STAGGER = Walked("valley", "sgd, momentum", {"lr": 0.05, "noise": 2.0, "seed": 1})
STAGGER_FAIR = Walked(
    "valley", {"sgd": {"lr": 0.05}, "momentum": {"lr": 0.005}}, {"lr": "own", "noise": 2.0, "seed": 1}
)
AXES = Walked("valley", "sgd, adagrad, rmsprop")
TURNED = Walked("rotated_valley", "sgd, adagrad, rmsprop")

CLAIMS = (
    Claim(
        name="mini-batches",
        words="Mini-batches speed training up greatly, at little cost in accuracy.",
        expected="It holds, and is understated: 64 rows need at most a fifth of the epochs of full batches, and 8 and "
        "64 rows end alike. But one row at a time is slower by the clock, since a step costs more than its "
        "row.",
        literature=(
            "CS231n, notes on optimization: mini-batch gradient descent.",
            "Bottou, “Large-scale machine learning with stochastic gradient descent”, 2010.",
            "Shallue et al., “Measuring the effects of data parallelism on neural network training”, 2019 "
            "(1811.03600): steps fall as 1/B up to a size that depends on the problem, then no further.",
            "Masters & Luschi, “Revisiting small batch training for deep neural networks”, 2018 (1804.07612): "
            "best at 2 to 32 rows.",
        ),
        play="lesson=batches",
        parts=(
            Part("a batch has 64 rows instead of all 1,077",
                 m.epochs("all rows", "64 rows", 0.4), at_least(5), "yes", BATCHES),
            Part("it has 64 rows, and accuracy is asked for",
                 m.accuracy("64 rows", "all rows"), at_least(0.99), "yes", BATCHES),
            Part("it has 8 rows, and accuracy is asked for",
                 m.accuracy("8 rows", "64 rows"), at_least(0.99), "yes", BATCHES),
            Part("it has one row, and the clock is asked",
                 m.seconds("1 row", "64 rows", 0.4), at_most(1), "no", BATCHES),
        ),
    ),
    Claim(
        name="zigzag",
        words="Momentum straightens the zigzag of gradient descent, and so is faster.",
        expected="It holds only when each has its own learning rate. At one learning rate momentum's way is longer and "
        "wigglier, and yet faster; with noise at one learning rate its loss settles ten times as high.",
        literature=(
            "Polyak, “Some methods of speeding up the convergence of iteration methods”, 1964: the rate goes from "
            "(κ − 1)/(κ + 1) to (√κ − 1)/(√κ + 1).",
            "Goh, “Why momentum really works”, 2017.",
            "Wang et al., “The marginal value of momentum for small learning rate SGD”, 2024 (2307.15196): "
            "little, where noise prevails.",
        ),
        play="lesson=zigzag",
        parts=(
            Part("each has its best learning rate, and steps are counted",
                 m.steps("momentum", "sgd"), at_most(0.8), "yes", TUNED),
            Part("each has its best learning rate, and the way is measured",
                 m.detour("momentum", "sgd"), at_most(1), "yes", TUNED),
            Part("inertia is tuned as well, and steps are counted",
                 m.steps("momentum", "sgd"), at_most(0.8), "yes", TUNED_MU),
            Part("inertia is tuned as well, and the way is measured",
                 m.detour("momentum", "sgd"), at_most(1), "yes", TUNED_MU),
            Part("both have one learning rate, and steps are counted",
                 m.steps("momentum", "sgd"), at_most(0.8), "yes", SHARED),
            Part("both have one learning rate, and the way is measured",
                 m.detour("momentum", "sgd"), at_most(1), "no", SHARED),
            Part("slopes are noisy, at one learning rate", m.floor("momentum", "sgd"), at_most(1), "no", NOISY),
        ),
    ),
    Claim(
        name="inertia",
        words="Inertia carries over plateaus and out of small hollows.",
        expected="It holds on level ground, at a saddle and for a hollow. Adam's inertia does not, where its steps are "
        "cut to one length; and where a plateau slopes a little, shoes without inertia are faster still.",
        literature=(
            "Rumelhart, Hinton & Williams, “Learning representations by back-propagating errors”, 1986.",
            "Jin, Netrapalli & Jordan, “Accelerated gradient descent escapes saddle points faster than gradient "
            "descent”, 2018 (1711.10456).",
            "O'Neill & Wright, “Behavior of accelerated gradient methods near critical points of nonconvex "
            "functions”, 2019 (1706.07993).",
        ),
        play="lesson=hill",
        parts=(
            Part("the ground is level for two lengths, each at its best learning rate",
                 m.steps("momentum", "sgd"), at_most(0.8), "yes", LEVEL),
            Part("a plateau slopes a little, each at its best learning rate",
                 m.steps("momentum", "sgd"), at_most(0.8), "yes", SLIGHT),
            Part("a plateau slopes a little, at one learning rate",
                 m.steps("momentum", "sgd"), at_most(0.8), "yes", SLIGHT_SHARED),
            Part("it is compared with RMSprop, which has no inertia, there",
                 m.steps("momentum", "rmsprop"), at_most(1), "no", SLIGHT),
            Part("he begins near a saddle, each at its best learning rate",
                 m.steps("momentum", "sgd"), at_most(0.8), "yes", SADDLE),
            Part("he begins near a saddle, at one learning rate",
                 m.steps("momentum", "sgd"), at_most(0.8), "yes", SADDLE_SHARED),
            Part("steep walls limit the learning rates near a saddle, each at its best",
                 m.steps("momentum", "sgd"), at_most(0.8), "yes", STEEP_SADDLE),
            Part("there is a hollow on the way, at one learning rate",
                 m.left("momentum"), at_most(0.01), "yes", HOLLOW),
            Part("it is Adam's inertia, there", m.left("adam"), at_most(0.01), "no", HOLLOW),
        ),
    ),
    Claim(
        name="nesterov",
        words="Nesterov momentum converges better on convex functions, and works slightly better in practice.",
        expected="It holds under conditions: better on a badly conditioned quadratic at µ = 0.9, and safe where heavy "
        "ball goes in a circle. Heavy ball with a tuned µ is the faster on quadratics, its learning rate may "
        "be larger, and on real data they are alike.",
        literature=(
            "Nesterov, “A method of solving a convex programming problem with convergence rate O(1/k²)”, 1983.",
            "Lessard, Recht & Packard, “Analysis and design of optimization algorithms via integral quadratic "
            "constraints”, 2016 (1408.3595): where heavy ball goes in a circle.",
            "Sutskever et al., “On the importance of initialization and momentum in deep learning”, 2013.",
            "Kidambi et al., “On the insufficiency of existing momentum schemes for stochastic optimization”, "
            "2018 (1803.05591).",
        ),
        play="lesson=cycle",
        parts=(
            Part("a quadratic has 100 curvatures, at µ = 0.9",
                 m.loss("nesterov", "momentum"), at_most(0.99), "yes", QUADRATIC),
            Part("heavy ball, tuned for a quadratic, walks on another convex function",
                 m.steps("nesterov", "momentum"), at_most(1), "yes", CYCLE),
            Part("µ is tuned too, in a quadratic valley",
                 m.steps("nesterov", "momentum"), at_most(0.99), "no", TUNED_MU),
            Part("it is asked how large a learning rate it bears",
                 m.limit("nesterov", "momentum"), at_least(1), "no", TUNED),
            Part("a network learns digits", m.loss("nesterov", "momentum"), at_most(0.99), "open", DIGITS),
        ),
    ),
    Claim(
        name="adagrad",
        words="Adagrad's effective step shrinks without end, and training stops too early.",
        expected="That it never grows holds always, and that it shrinks without end as long as slopes keep coming. "
        "That training stops too early is true at a borrowed learning rate and after a burst of slopes; with "
        "a learning rate of its own it is as good as the best.",
        literature=(
            "Duchi, Hazan & Singer, “Adaptive subgradient methods for online learning and stochastic "
            "optimization”, 2011: the decay is the guarantee.",
            "Agarwal et al., “Disentangling adaptive gradient methods from learning rates”, 2020 (2002.11803): a "
            "schedule mends it.",
            "Defazio et al., “Grad-GradaGrad? A non-monotone adaptive stochastic gradient method”, 2022 "
            "(2206.06900).",
        ),
        play="lesson=adagrad",
        parts=(
            Part("it is asked whether the effective step ever grows", m.growth("adagrad"), at_most(1), "yes", SHOES),
            Part("slopes are noisy and never vanish",
                 m.later("adagrad", 500, 5000), at_most(0.4), "yes", SHOES_NOISY),
            Part("slopes vanish, as he arrives", m.later("adagrad", 20, 200), at_most(0.4), "no", SHOES_TUNED),
            Part("its learning rate is borrowed from RMSprop", m.left("adagrad"), at_least(0.1), "yes", SHOES),
            Part("slopes are huge at first, even at its best learning rate",
                 m.steps("adagrad", "rmsprop"), at_least(2), "yes", BURST),
            Part("a network learns digits, each rule at its best learning rate",
                 m.loss("adagrad"), at_least(1.1), "no", DIGITS),
        ),
    ),
    Claim(
        name="rmsprop",
        words="RMSprop's effective step does not shrink without end, so training goes on.",
        expected="It holds, and is also its fault: it does not settle when it should.",
        literature=(
            "Tieleman & Hinton, “Lecture 6.5: rmsprop”, 2012, slide 29.",
            "Reddi, Kale & Kumar, “On the convergence of Adam and beyond”, 2018 (1904.09237): what forgetting may "
            "cost.",
        ),
        play="lesson=rmsprop",
        parts=(
            Part("it is asked whether the effective step grows again",
                 m.growth("rmsprop"), at_least(1.1), "yes", SHOES),
            Part("slopes are noisy and never vanish",
                 m.later("rmsprop", 500, 5000), at_least(0.5), "yes", SHOES_NOISY),
            Part("200 steps are taken, at Adagrad's learning rate", m.left("rmsprop"), at_most(0.01), "yes", SHOES),
            Part("slopes are huge at first", m.steps("rmsprop", "adagrad"), at_most(0.5), "yes", BURST),
            Part("it is to come to rest", m.farthest("rmsprop", "adagrad"), at_most(1), "no", KINK),
        ),
    ),
    Claim(
        name="adam-defaults",
        words="Adam at its defaults works better than RMSprop.",
        expected="It depends on whose defaults. PyTorch's RMSprop has 0.01 and a first step of ten times that, Keras's "
        "has 0.001; Adam has 0.001. Tuned, they cannot be told apart.",
        literature=(
            "Kingma & Ba, “Adam: a method for stochastic optimization”, 2015.",
            "Choi et al., “On empirical comparisons of optimizers for deep learning”, 2019 (1910.05446).",
            "Schmidt, Schneider & Hennig, “Descending through a crowded valley”, 2021 (2007.01547).",
        ),
        play="lesson=dialects",
        parts=(
            Part("it is PyTorch's RMSprop, both at their defaults",
                 m.loss_at("adam", 1e-3, "torch.rmsprop", 1e-2), at_most(0.99), "yes", DEFAULTS),
            Part("it is Keras's RMSprop, both at their defaults",
                 m.loss_at("adam", 1e-3, "keras.rmsprop", 1e-3), at_most(0.99), "open", DEFAULTS),
            Part("each has its best learning rate", m.loss("adam", "torch.rmsprop"), at_most(0.99), "open", DEFAULTS),
        ),
    ),
    Claim(
        name="sgd-nesterov",
        words="SGD with Nesterov momentum is worth trying instead of Adam.",
        expected="It depends on the data: a tie on digits, ahead where Adam learns what does not carry over, and where "
        "all classes are as frequent; far behind where the k-th class has a share of 1/k.",
        literature=(
            "CS231n, notes on neural networks 3: parameter updates.",
            "Wilson et al., “The marginal value of adaptive gradient methods in machine learning”, 2017 "
            "(1705.08292).",
            "Kunstner et al., “Heavy-tailed class imbalance and why Adam outperforms gradient descent on language "
            "models”, 2024 (2402.19449).",
        ),
        play="lesson=worth",
        parts=(
            Part("a network learns digits", m.loss("nesterov", "adam"), at_most(1.1), "yes", DIGITS),
            Part("the k-th of 100 classes has a share of 1/k", m.loss("nesterov", "adam"), at_most(1.1), "no", HEAVY),
            Part("all 100 classes are as frequent", m.loss("nesterov", "adam"), at_most(1.1), "yes", EVEN),
            Part("every point has features of its own, and one tells the classes apart",
                 m.loss("nesterov", "adam"), at_most(1.1), "yes", SEPARABLE),
        ),
    ),
    Claim(
        name="bias-correction",
        words="Adam's bias correction matters, above all in the first steps.",
        expected="In the first steps it is true, and larger than people think: without it the first step is 3.2 times "
        "as long, and with a longer memory 10 times. With two equal memories it is shorter. At the end, "
        "tuned, the two cannot be told apart; the safe range of learning rates moves.",
        literature=(
            "Kingma & Ba, “Adam: a method for stochastic optimization”, 2015, section 6.4.",
            "Laing & Orvieto, “Adam simplified: bias correction debunked”, 2025 (2511.20516): no gain in the best "
            "configuration; it is a schedule, √(1 − β₂ᵗ)/(1 − β₁ᵗ).",
        ),
        play="lesson=correction",
        parts=(
            Part("it is the first step", m.stride("adam, uncorrected", "adam"), at_least(2), "yes", FIRST),
            Part("it is the first step, with β₂ = 0.9999",
                 m.stride("adam, uncorrected", "adam"), at_least(5), "yes", LONG_MEMORY),
            Part("it is to keep the first step short, with β₁ = β₂ = 0.95",
                 m.stride("adam, uncorrected", "adam"), at_least(2), "no", EQUAL_MEMORIES),
            Part("a network has learned digits, each at its best learning rate",
                 m.loss("adam, uncorrected", "adam"), at_least(1.01), "open", CORRECTION),
            Part("it is asked which learning rates are safe",
                 m.highest("adam", "adam, uncorrected"), at_least(2), "yes", CORRECTION),
        ),
    ),
    Claim(
        name="drunk-man",
        words="Gradient descent is a drunk man's zigzag; inertia evens it out, and Adagrad's shoes make it straight.",
        expected="He zigzags near the limit of his learning rate and with noise, not with short steps. Inertia evens "
        "out noise; it does not shorten the way across a valley. Shoes make it straight where the valley runs "
        "along the axes, and not where it is turned. And RMSprop has no inertia, though a well-known picture "
        "gives it some.",
        literature=(
            "Morvan's tutorials draw the rules as a drunk man: on a slope (momentum), in bad shoes (Adagrad), "
            "with half of both (RMSprop).",
            "Tieleman & Hinton, “Lecture 6.5: rmsprop”, 2012: it has no momentum.",
        ),
        play="surface=valley&rules=sgd,momentum,adagrad,rmsprop&lr=best",
        parts=(
            Part("he strides near the limit of his learning rate", m.turns("sgd"), at_least(5), "yes", NEAR_LIMIT),
            Part("he takes short steps", m.turns("sgd"), at_least(5), "no", SHORT_STEPS),
            Part("inertia is to take away turns near the limit",
                 m.turns("momentum", "sgd"), at_most(0.8), "yes", NEAR_LIMIT),
            Part("inertia is to shorten the way near the limit",
                 m.detour("momentum", "sgd"), at_most(1), "no", NEAR_LIMIT),
            Part("slopes are noisy, and inertia is to shorten the way at one learning rate",
                 m.detour("momentum", "sgd"), at_most(1), "yes", STAGGER),
            Part("slopes are noisy, and inertia has a tenth of the learning rate, so that both are as fast",
                 m.detour("momentum", "sgd"), at_most(0.8), "yes", STAGGER_FAIR),
            Part("he wears Adagrad's shoes, and the valley runs along an axis",
                 m.detour("adagrad", "sgd"), at_most(1), "yes", AXES),
            Part("he wears them, and the valley is turned", m.steps("adagrad", "sgd"), at_most(0.8), "no", TURNED),
            Part("RMSprop's inertia is to carry over level ground as momentum's",
                 m.steps("rmsprop", "momentum"), at_most(2), "no", LEVEL),
        ),
    ),
)  # fmt: skip
