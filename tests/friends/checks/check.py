"""What a check is: a function whose first line says what TCP promises."""

ALL = {}


class Check:
    def __init__(self, function, is_of_blocking):
        self.run = function
        self.is_of_blocking = is_of_blocking
        self.promise = function.__doc__.strip().split("\n")[0]


def check(function):
    """Of all sockets."""
    ALL[function.__name__] = Check(function, is_of_blocking=False)
    return function


def check_blocking(function):
    """Of calls that wait: with O_NONBLOCK there's nothing to ask."""
    ALL[function.__name__] = Check(function, is_of_blocking=True)
    return function
