import tensorflow as tf

from runtime.loaded_models import forget_models, loaded


def saved(folder, value):
    module = tf.Module()
    module.value = tf.Variable(value)
    tf.saved_model.save(module, str(folder))
    return str(folder)


def test_a_model_is_loaded_once_until_it_is_forgotten(tmp_path):
    folders = [saved(tmp_path / str(value), value) for value in (1, 2)]
    first, second = map(loaded, folders)
    assert [int(model.value) for model in (first, second)] == [1, 2]
    assert loaded(folders[0]) is first
    forget_models(but=folders[1])
    assert loaded(folders[1]) is second
    assert loaded(folders[0]) is not first
    saved(tmp_path / "1", 3)
    forget_models()
    assert int(loaded(folders[0]).value) == 3
    forget_models()
