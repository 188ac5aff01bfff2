<?php
$db = new PDO('sqlite::memory:');
$db->exec('CREATE TABLE posts (title TEXT)');
$db->prepare('INSERT INTO posts VALUES (?)')->execute([$_GET['title'] ?? 'Hello world!']);
header('Content-Type: text/plain');
foreach ($db->query('SELECT title FROM posts') as $post) {
    echo $post['title'], "\n";
}
