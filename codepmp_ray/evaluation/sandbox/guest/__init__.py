"""Runs inside the sandbox: one process with the test, another with the answer's code.

    host --stdin--> tester (process 1 of its namespace) <--socket pair--> worker (the answer)
         <-stdout--

The worker is forked before the test is read, so the test's expected values are not in its memory.
It gets the answer's source and then, for each call that the test makes, the arguments; it sends the
result back as plain data. The tester compares, and it alone writes the verdict. So an answer cannot
pass by exiting early, by printing, by objects that are equal to everything or by reading the test:
all it controls is what its function returns. As process 1 the tester cannot be killed from inside;
it cannot be traced; and when it ends, the kernel kills whatever else is left.

What remains: a hole in the kernel, and an answer that recognises the task and its tests by heart.
A test that hands over objects, or looks for changes to arguments, fails whatever the answer does.
Such problems can be named (`evaluation.sandbox.shared_process`): their tests run in the worker, in
the answer's module. All walls around it stand, but the answer can forge its verdict.

This folder is mounted into the sandbox as the package `guest`: standard library only, relative
imports only.
"""
